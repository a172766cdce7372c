-- Puts off the deadline of a running chunk; if a worker is about to read an image that may kill it,
-- `noted` says which. Returns 0 if the worker may stop: another one was first, or the job has ended.
function steps.renew(n, noted)
  if get('ttl') and redis.call('ZREM', running, n) == 1 then
    redis.call('ZADD', running, stamp(now), n)
    if noted then redis.call('HSET', poison_rows, n, noted) end
    touch()
  end
  return redis.call('HEXISTS', chunks, n)
end
