-- A worker's heartbeat: what it says of itself is `about`, which expires after `seconds`. Returns how
-- many images the worker has classified, the time, and what was said under this name before.
function steps.note_worker(name, seconds, about)
  local worker = WORKER .. name
  local before = redis.call('HGET', worker, 'about')
  redis.call('HDEL', worker, 'heard')
  redis.call('HSET', worker, 'heard', stamp(now), 'about', about)
  redis.call('EXPIRE', worker, seconds)
  redis.call('ZADD', workers, stamp(now), name)
  redis.call('ZREMRANGEBYSCORE', workers, '-inf', stamp(now - seconds))
  redis.call('EXPIRE', workers, seconds)
  return {tonumber(redis.call('HGET', worker, 'images') or 0), stamp(now), before}
end
