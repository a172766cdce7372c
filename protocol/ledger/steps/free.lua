-- Deletes the results and right answers of the first `count` chunks, which a file has. They have `images`
-- images.
function steps.free(count, images)
  local freed = number('freed')
  if is_stopped() or tonumber(count) <= freed then return end
  -- A login may give any count, so no more chunks are deleted than there are results, and one
  for past = 0, math.min(count - freed - 1, redis.call('HLEN', results)) do
    redis.call('HDEL', results, freed + past)
    redis.call('HDEL', truths, freed + past)
  end
  if get('ttl') then set('freed', count, 'freed_images', images) end
end
