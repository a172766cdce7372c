-- What the steps of the ledger share. Each step is a file in steps/, and changes the state of one job
-- in Redis at once. ARGV[1] names the step, ARGV[2] is the beginning of the channels on which Flower
-- hears of tasks, and the step's arguments follow.
-- KEYS: the job's record, the watermark (when the latest begun chunk was published), Celery's queue,
-- the set of active jobs, all jobs by creation time, the queue of single calls, the jobs whose end no
-- worker has logged, what is counted of all jobs, the workers that live, and how far the last sweep came.
-- A chunk is stored, then published (queued: its message is in Celery's queue), then begun (running),
-- then completed. The first to complete it wins; all other messages for it change nothing.
-- A step removes before it adds: if Redis is out of memory, it refuses a script whose first write adds
-- something, but lets one go on that began by removing.
-- script.py defines the names in capital letters in front of this file, and appends the steps to it.
local record, watermark, queue, active, jobs, calls_queue, ended, counters, workers, sweeping = unpack(KEYS)
local chunks, rows, queued, running, results, truths, done, attempts
local poison_rows, failures, known, begun, work

-- Makes the steps change the job with this record.
local function use(key)
  record = key
  chunks, rows, queued, running = key .. ':chunks', key .. ':rows', key .. ':queued', key .. ':running'
  results, done, attempts, begun = key .. ':results', key .. ':done', key .. ':attempts', key .. ':begun'
  truths = key .. ':truths' -- the right answers, which only those read who collect a detached job
  poison_rows, failures, known = key .. ':poison_rows', key .. ':failures', key .. ':known'
  work = {chunks, rows, queued, running, attempts, poison_rows, failures, known, begun}
end
use(record)

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

local function stamp(time) return string.format('%.6f', time) end
local function get(field) return redis.call('HGET', record, field) end
local function number(field) return tonumber(get(field) or 0) end
local function add(field, count) redis.call('HINCRBY', record, field, count) end
local function is_stopped() return get('state') == 'cancelled' or get('state') == 'failed' end

-- Adds to what is counted of all jobs, which outlives them.
local function tally(field, count) redis.call('HINCRBY', counters, field, count) end

-- Workers take messages from the queue of single calls first: someone waits for the answers. Images of
-- other programs, which may be very many, have a queue that takes turns with both.
local function own_queue() return get('task') and BOOKED or get('call') and calls_queue or queue end
local function own_watermark() return get('task') and watermark .. ':images' or watermark end

local function touch()
  local ttl = get('ttl')
  if not ttl then return end -- the record is gone, and the other keys expire
  for _, key in ipairs({record, results, truths, done, unpack(work)}) do redis.call('EXPIRE', key, ttl) end
  if get('call') then redis.call('EXPIRE', KNOWN .. get('known'), ttl) end
  if redis.call('TTL', jobs) < tonumber(ttl) then redis.call('EXPIRE', jobs, ttl) end
end

-- Creates the record. `base` is the oldest chunk that is not collected, `base_row` its first row. The
-- rest are names and values of fields in turn.
local function create(base, base_row, ...)
  redis.call('HSET', record, 'state', 'feeding', 'created', stamp(now), 'stored', base,
    'published', base, 'done_chunks', base, 'images', base_row, 'done_images', base_row, ...)
  local id = get('id')
  for _, old in ipairs(redis.call('ZRANGE', jobs, 0, 1)) do -- expired jobs must not pile up there
    if redis.call('EXISTS', JOB .. old) == 0 then redis.call('ZREM', jobs, old) end
  end
  redis.call('SADD', active, id)
  if not get('task') then redis.call('ZADD', jobs, get('created'), id) end -- images would hide jobs
  touch()
end

-- Creates the record if Redis has lost it, and brings it up to date: a Redis that lost its last second
-- may have forgotten chunks that were already collected. Returns false if the job was ended.
local function recover(base, base_row, ...)
  if redis.call('EXISTS', record) == 0 then create(base, base_row, ...) end
  if is_stopped() then return false end
  if tonumber(base) > number('stored') then
    redis.call('HSET', record, 'stored', base, 'published', base)
  end
  return true
end

-- A message in the form of kombu.
local function message(id, content, headers, exchange, routing_key)
  return cjson.encode({
    body = cjson.encode(content),
    headers = headers,
    properties = {
      correlation_id = id, delivery_tag = id, delivery_mode = 2, priority = 0, body_encoding = 'utf-8',
      delivery_info = {exchange = exchange, routing_key = routing_key},
    },
    ['content-type'] = 'application/json',
    ['content-encoding'] = 'utf-8',
  })
end

-- Sends Celery's event of a task, which Flower shows.
local function tell_flower(what, id, event)
  event.type, event.uuid, event.hostname, event.timestamp = 'task-' .. what, id, 'digitq', now
  -- A Redis user that may not publish there must still be able to queue
  redis.pcall('PUBLISH', ARGV[2] .. what,
    message(id, event, {hostname = 'digitq'}, 'celeryev', 'task.' .. what))
end

-- Queues a chunk and its message: Celery's, protocol version 2. Celery's event tells Flower of it.
local function publish(n)
  local job, time, task, id, text = get('id'), stamp(now), 'digitq.classify_image', get('task'), get('source')
  if not id then
    task, id = 'digitq.classify', string.format('%s-%d-%s', job, n, time)
    local count = redis.call('HGET', rows, n) or '?'
    local noun = count == '1' and 'image' or 'images'
    text = string.format('job %s, chunk %d, %s %s', job, n, count, noun)
  end
  local headers = {lang = 'py', task = task, id = id, root_id = id, argsrepr = text, kwargsrepr = ''}
  local content = {{job, tonumber(n)}, {}, {}} -- arguments, keyword arguments, callbacks
  redis.call('ZADD', queued, time, n)
  redis.call('LPUSH', own_queue(), message(id, content, headers, '', queue))
  tell_flower('sent', id, {name = task, args = text, kwargs = ''})
end

-- Publishes stored chunks, up to `in_flight` at a time so that jobs share the workers, and more while
-- the queue is empty. Its callers have changed the job, so it also postpones the expiry of all keys.
local function publish_next()
  local in_flight = redis.call('ZCARD', queued) + redis.call('ZCARD', running)
  local limit, published, stored = number('in_flight'), number('published'), number('stored')
  while published < stored and (in_flight < limit or redis.call('LLEN', own_queue()) == 0) do
    publish(published)
    published, in_flight = published + 1, in_flight + 1
  end
  redis.call('HSET', record, 'published', published)
  touch()
end

-- Creates a job of one chunk and publishes it.
local function create_call(count, payload, call, ...)
  create(0, 0, ...)
  redis.call('HSET', chunks, 0, payload)
  redis.call('HSET', rows, 0, count)
  redis.call('HSET', record, 'state', 'running', 'stored', 1, 'images', count,
    'bytes', #payload, 'call', call)
  publish_next()
end

-- Deletes a job of one chunk with its record.
local function forget()
  redis.call('ZREM', jobs, get('id'))
  redis.call('DEL', record, results, done, unpack(work))
end

-- Has a worker log that the job has ended. Some workers log failures only, so these come first.
local function tell_end()
  if get('call') then return end
  redis.call(get('state') == 'failed' and 'LPUSH' or 'RPUSH', ended, get('id'))
  redis.call('LTRIM', ended, 0, 9999) -- there may be no worker that logs them
  redis.call('EXPIRE', ended, 3600) -- seconds
end

local function finish_if_done()
  if get('state') == 'running' and number('done_chunks') == number('stored') then
    redis.call('HSET', record, 'state', 'done', 'finished', stamp(now), 'bytes', 0)
    redis.call('SREM', active, get('id'))
    redis.call('DEL', unpack(work))
    tell_end()
  end
end

local function publish_again(n)
  redis.call('ZREM', running, n) -- even if it is not there: a step begins by removing
  publish(n)
  add('sent_again', 1)
  tally('sent_again', 1)
  touch() -- only here, or a job that nobody works on could never expire
end

-- The id of the task in a message in the form of kombu, if it is of an image from another program, and
-- Flower's text for it; otherwise nothing. The worker that begins the image checks the rest.
local function read_image(message)
  if not string.find(message, '"digitq.classify_image"', 1, true) then return end
  local is_read, task, id, bytes = pcall(function()
    local content = cjson.decode(message)
    local share = content.properties.body_encoding == 'base64' and 0.75 or 1
    return content.headers.task, content.headers.id, 0.75 * share * #content.body
  end)
  if not is_read or task ~= 'digitq.classify_image' or type(id) ~= 'string' then return end
  if #id <= 200 and string.find(id, '^[!-~]+$') then
    return id, string.format('image of %.1f kB', bytes / 1000)
  end
end

local steps = {} -- by name
