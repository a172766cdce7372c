-- Deletes the results and right answers of the first `count` chunks, which a file has. They have `images`
-- images.
function steps.free(count, images)
  local freed = number('freed')
  if is_stopped() or tonumber(count) <= freed then return end
  redis.call('HDEL', results, -1) -- a step begins by removing
  for _, n in ipairs(redis.call('HKEYS', results)) do -- and no loop to any count that is given
    if (tonumber(n) or 0) < tonumber(count) then
      redis.call('HDEL', results, n)
      redis.call('HDEL', truths, n)
    end
  end
  if get('ttl') then set('freed', count, 'freed_images', images) end
end
