-- Begins a chunk, whose payload the worker reads in the same round trip. Returns the model; how often
-- the chunk was begun; the name of what is known of the job's numbers; the job's source, if this is its
-- first chunk and it is no single call; whether `begin_calls` may find other calls for it; and the id of
-- its task, if it is an image of another program. Returns an empty table if there is nothing to do.
function steps.begin(n, worker)
  local published, model = redis.call('ZSCORE', queued, n), get('model')
  if not published or not model or redis.call('HEXISTS', chunks, n) == 0 then return {} end
  redis.call('ZREM', queued, n)
  redis.call('ZADD', running, stamp(now), n)
  redis.call('HSET', begun, n, stamp(now) .. ' ' .. worker)
  tally('begun', 1)
  local mark = tonumber(redis.call('GET', own_watermark()) or 0)
  local moves = tonumber(published) > mark or mark > now + 1 -- or the clock was set back
  if moves and own_queue() ~= calls_queue then -- a call overtakes chunks that are not lost
    redis.call('SET', own_watermark(), published, 'EX', get('ttl'))
  end
  local attempt = redis.call('HINCRBY', attempts, n, 1)
  local most = number('most_attempts')
  if attempt > most then set('most_attempts', attempt) end
  publish_next()
  local is_first = most == 0 and not get('call')
  local shares = attempt == 1 and get('call') == 'shared' and redis.call('LLEN', own_queue()) > 0
  return {model, attempt, get('known') or '', is_first and get('source') or false, shares and 1 or 0, get('task') or ''}
end
