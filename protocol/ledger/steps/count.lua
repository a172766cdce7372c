-- Counts images that a worker has done.
function steps.count(model, count, failed, review, work_seconds, worker)
  tally('images:' .. model, count)
  tally('failed:' .. model, failed)
  tally('review:' .. model, review)
  tally('work_us:' .. model, math.floor(1e6 * work_seconds))
  if redis.call('EXISTS', WORKER .. worker) == 1 then
    redis.call('HINCRBY', WORKER .. worker, 'images', count)
  end
end
