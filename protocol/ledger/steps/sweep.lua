-- Moves images that were sent without a queue's name to the queue that workers read, if they are among
-- the newest messages of Celery's default queue. The others there are left: they are other programs'.
local function adopt_images()
  local moved, others, bytes = {}, 0, 0
  while #moved + others < MAX_PEEKED and bytes < MAX_PEEKED_BYTES do
    local message = redis.pcall('LINDEX', DEFAULT_QUEUE, others) -- this user may have no right to it
    if type(message) ~= 'string' then break end
    local is_moved = read_image(message) and redis.pcall('LREM', DEFAULT_QUEUE, 1, message) == 1
    if is_moved then table.insert(moved, message) else others = others + 1 end
    bytes = bytes + #message
  end
  for oldest = #moved, 1, -1 do redis.call('LPUSH', IMAGES, moved[oldest]) end
end

-- Sweeps the next MAX_SWEPT active jobs, unless that was done less than `seconds` ago: however many
-- wait and sweep, it costs Redis no more. Returns whether it did. If the clock was set back, it does.
function steps.sweep(deadline, seconds)
  local last, cursor = string.match(redis.call('GET', sweeping) or '', '^(%S+) (%d+)$')
  if last and now >= tonumber(last) and now - last < tonumber(seconds) then return false end
  local next_cursor, ids = unpack(redis.call('SSCAN', active, cursor or 0, 'COUNT', MAX_SWEPT))
  redis.call('DEL', sweeping)
  redis.call('SET', sweeping, stamp(now) .. ' ' .. next_cursor, 'EX', 3600) -- seconds
  for _, id in ipairs(ids) do
    use(JOB .. id)
    pcall(function() -- whoever may submit can damage a job's keys, which stops no other
      steps.sweep_job(deadline)
      settle()
    end)
  end
  adopt_images()
  return true
end
