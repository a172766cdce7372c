-- Begins other calls than the job's own that wait at the front of its queue, up to `count` calls,
-- `images` and `bytes`: such as may be shared, want the same model, and were never begun. Returns the
-- id, the payload and the message's id of each. At most a third of the images of other programs are
-- begun, since other workers may be idle.
function steps.begin_calls(count, images, bytes, worker)
  local taken, model, waiting = {}, get('model'), own_queue()
  images, bytes = tonumber(images), tonumber(bytes)
  if waiting == BOOKED then count = math.min(count, math.floor(redis.call('LLEN', waiting) / 3)) end
  while #taken < 3 * count do
    local is_read, id, message_id = pcall(function()
      local message = cjson.decode(redis.call('LINDEX', waiting, -1))
      return cjson.decode(message.body)[1][1], message.headers.id
    end)
    if not is_read or type(id) ~= 'string' or type(message_id) ~= 'string' then break end
    use(JOB .. id)
    images = images - tonumber(redis.call('HGET', rows, 0) or 0)
    bytes = bytes - redis.call('HSTRLEN', chunks, 0)
    if get('call') ~= 'shared' or get('model') ~= model or images < 0 or bytes < 0 then break end
    if redis.call('EXISTS', attempts) == 1 then break end
    redis.call('RPOP', waiting)
    if steps.begin(0, worker)[1] then
      table.insert(taken, id)
      table.insert(taken, redis.call('HGET', chunks, 0))
      table.insert(taken, message_id)
    end
    settle()
  end
  return taken
end
