-- Returns the result of a job of one chunk. Once it is there, the job and its record are deleted.
function steps.take()
  local result = redis.call('HGET', results, 0)
  if result then forget() end
  return result
end
