-- Notes that the submitter is alive, even if it has nothing to store, and how many images it holds
-- because there is no room for them.
function steps.heartbeat(held)
  if redis.call('EXISTS', record) == 0 then return end
  redis.call('HDEL', record, 'fed')
  set('fed', stamp(now), 'held', tonumber(held))
  touch()
end
