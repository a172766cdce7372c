-- Deletes the results and right answers of the first `count` chunks, which a file has. They have `images`
-- images.
function steps.free(count, images)
  local freed = number('freed')
  if is_stopped() or tonumber(count) <= freed then return end
  for n = freed, count - 1 do
    redis.call('HDEL', results, n)
    redis.call('HDEL', truths, n)
  end
  if get('ttl') then set('freed', count, 'freed_images', images) end
end
