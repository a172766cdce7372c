-- Returns the result of a job of one chunk. Once it is there, the job and its record are deleted.
function steps.take()
  local result = redis.call('HGET', results, 0)
  if result then
    redis.call('ZREM', jobs, get('id'))
    redis.call('DEL', record, results, done, unpack(work))
  end
  return result
end
