-- Takes images of other programs that wait, for a worker that has begun one: up to `count` with up to
-- `bytes` in all, and at most a third, since other workers may be idle. kombu's record of each is
-- written, so that it is sent again if the worker dies. An image that was sent again is left, since it
-- may crash workers, and so is one for which Celery must look at the time, or that kombu could not read
-- again from the record: it has other than printable ASCII. Returns the tag and the message of each.
function steps.take_images(count, bytes)
  local taken = {}
  count, bytes = math.min(count, math.floor(redis.call('LLEN', IMAGES) / 3)), tonumber(bytes)
  while #taken < 2 * count do
    local message = redis.call('LINDEX', IMAGES, -1)
    bytes = bytes - #message
    local headers, tag = read_image(bytes < 0 and '' or message)
    if not headers or headers.redelivered or #string.match(message, '^[ -~]*') < #message then break end
    if (headers.eta or cjson.null) ~= cjson.null or (headers.expires or cjson.null) ~= cjson.null then break end
    redis.call('RPOP', IMAGES)
    redis.call('ZADD', UNACKED_INDEX, stamp(now), tag)
    redis.call('HSET', UNACKED, tag, '[' .. message .. ', "", "' .. IMAGES .. '"]')
    table.insert(taken, tag)
    table.insert(taken, message)
  end
  return taken
end
