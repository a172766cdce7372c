-- Ends a job: collected, cancelled or failed. Only its record stays. A job that is done can't fail.
function steps.close(state, reason)
  if redis.call('EXISTS', record) == 0 or state == 'failed' and get('state') == 'done' then return end
  redis.call('SREM', active, get('id'))
  redis.call('DEL', results, truths)
  delete_work()
  if state ~= get('state') and not is_stopped() then -- the first end counts
    set('state', state, 'bytes', 0)
    if reason then set('reason', reason) end
    -- A job that was done keeps its end
    if redis.call('HSETNX', record, 'finished', stamp(now)) == 1 then tell_end() end
  end
  redis.call('XADD', done, '*', state, 1) -- wakes those who wait for results
  redis.call('EXPIRE', done, 10)
end
