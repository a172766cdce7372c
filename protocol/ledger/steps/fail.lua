-- A worker could not classify a chunk. Returns how often that has happened.
function steps.fail(n)
  if redis.call('HEXISTS', chunks, n) == 0 then return 0 end
  local count = redis.call('HINCRBY', failures, n, 1)
  touch()
  return count
end
