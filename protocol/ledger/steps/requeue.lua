-- The process of `worker` that was at a chunk has died: publishes the chunk again if it is still that
-- worker's. After QUICK_ATTEMPTS it waits for its deadline: a worker whose processes die at once must
-- not use up all attempts before others are there.
function steps.requeue(n, worker)
  local by = string.match(redis.call('HGET', begun, n) or '', ' (.*)')
  local attempt = tonumber(redis.call('HGET', attempts, n) or 0)
  if by == worker and attempt <= QUICK_ATTEMPTS and redis.call('ZSCORE', running, n) then
    publish_again(n)
  end
end
