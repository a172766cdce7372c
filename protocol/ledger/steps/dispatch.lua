-- Enters a chunk whose payload was just added to the chunks. Returns how many chunks are stored: no
-- more than n if Redis has lost some before it; nothing if the job was cancelled or has failed.
function steps.dispatch(base, base_row, n, count, ...)
  n, count = tonumber(n), tonumber(count)
  if not recover(base, base_row, ...) then
    redis.call('HDEL', chunks, n)
    redis.call('HDEL', truths, n)
    return nil
  end
  set('fed', stamp(now), 'held', 0)
  local stored = number('stored')
  if n ~= stored then -- it is too early, or sent again because the reply was lost and may be done
    if redis.call('HEXISTS', rows, n) == 0 then redis.call('HDEL', chunks, n) end
    return stored
  end
  redis.call('HSET', rows, n, count)
  local bytes = redis.call('HSTRLEN', chunks, n)
  set('stored', n + 1, 'images', number('images') + count, 'bytes', number('bytes') + bytes)
  publish_next()
  return n + 1
end
