-- Makes a single call of an image that another program has sent. Returns false if it is none.
local function book(message)
  local task, text = read_image(message)
  if not task then return false end
  local id = string.sub(redis.sha1hex(task), 1, 12)
  use(JOB .. id)
  if redis.call('EXISTS', record) == 1 then return true end -- it was sent twice
  create_call(1, message, 'shared', 'id', id, 'task', task, 'model', '', 'source', text,
    'attached', 0, 'in_flight', 1, 'ttl', IMAGE_TTL_SECONDS, 'known', '')
  return true
end

-- Moves images of other programs from kombu's lists into the ledger, until MAX_BOOKED wait there: the
-- jobs of very many would slow down whoever looks at all jobs. Returns how many messages are left, and
-- those that were dropped because they hold no image.
function steps.book_images()
  local left, dropped, bytes = 0, {}, 0
  for _, list in ipairs(UNBOOKED) do
    while redis.call('LLEN', BOOKED) < MAX_BOOKED and bytes < MAX_BOOKED_BYTES do
      local message = redis.call('RPOP', list)
      if not message then break end
      if not book(message) then table.insert(dropped, message) end
      bytes = bytes + #message + 1000 -- a message costs time, however short it is
    end
    left = left + redis.call('LLEN', list)
  end
  return {left, dropped}
end
