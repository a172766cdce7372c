-- Publishes overdue chunks again.
-- A running chunk is overdue after `deadline` seconds, or PATIENCE times the longest silence of the
-- job's workers if that is more. A queued chunk is overdue if its message is lost: after the deadline,
-- if its queue is empty or if chunks have been begun that were published a deadline later. A chunk
-- with a time in the future is overdue: the clock was set back.
function steps.sweep_job(deadline)
  deadline = tonumber(deadline)
  if redis.call('EXISTS', record) == 0 then
    local id = string.sub(record, #JOB + 1)
    redis.call('SREM', active, id)
    redis.call('ZREM', jobs, id)
    return
  end
  local lost = now - deadline
  if redis.call('LLEN', own_queue()) > 0 then
    lost = math.min(lost, tonumber(redis.call('GET', own_watermark()) or 0) - deadline)
  end
  local patience = math.max(deadline, PATIENCE * number('silent_ms') / 1000)
  local function publish_range(set, first, last)
    for _, n in ipairs(redis.call('ZRANGEBYSCORE', set, first, last, 'LIMIT', 0, 1000)) do
      if left > 0 and redis.call('LLEN', own_queue()) < MAX_RESENT then publish_again(n) end
    end
  end
  publish_range(queued, '-inf', stamp(lost))
  publish_range(running, '-inf', stamp(now - patience))
  for _, set in ipairs({queued, running}) do publish_range(set, stamp(now + 1), '+inf') end
end
