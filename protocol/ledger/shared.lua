-- What the steps of the ledger share. Each step is a file in steps/, and changes the state of one job
-- in Redis at once. ARGV[1] names the step, ARGV[2] is the beginning of the channels on which Flower
-- hears of tasks, and the step's arguments follow.
-- KEYS[1] is the job's record. The other names in Redis are in keys.py.
-- A chunk is stored, then published (queued: its message is in Celery's queue), then begun (running),
-- then completed. The first to complete it wins; all other messages for it change nothing.
-- A step removes before it adds: if Redis is out of memory, it refuses a script whose first write adds
-- something, but lets one go on that began by removing.
-- script.py defines the names in capital letters in front of this file, and appends the steps to it.
local record, chunks, rows, queued, running, results, truths, done, attempts
local poison_rows, failures, known, begun, work
local fields -- of the record, once they are read: each call of Redis takes a script some µs
local is_changed = false -- whether the expiry of the job's keys is still to be postponed
local counts = {} -- what the script adds to the counts of all jobs
local left = MAX_SENT_BYTES -- how many bytes of messages the script may still queue

-- Who may not load scripts, as a producer, runs the steps of producers only. Redis 6 can't ask.
local function check_rights()
  if not redis.acl_check_cmd or redis.acl_check_cmd('SCRIPT', 'LOAD', '') then return end
  local size = 0
  for _, argument in ipairs(ARGV) do size = size + #argument end
  if size > (PRODUCER_STEPS[ARGV[1]] or 0) or #KEYS[1] > 200 then
    return redis.error_reply('NOPERM only a worker may do this step of the ledger')
  end
end
local refusal = check_rights()
if refusal then return refusal end

-- Makes the steps change the job with this record. The job before it must be settled.
local function use(key)
  record, fields, is_changed = key, nil, false
  chunks, rows, queued, running = key .. ':chunks', key .. ':rows', key .. ':queued', key .. ':running'
  results, done, attempts, begun = key .. ':results', key .. ':done', key .. ':attempts', key .. ':begun'
  truths = key .. ':truths' -- the right answers, which only those read who collect a detached job
  poison_rows, failures, known = key .. ':poison_rows', key .. ':failures', key .. ':known'
  work = {chunks, rows, queued, running, attempts, poison_rows, failures, known, begun}
end
use(KEYS[1])

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

local function stamp(time) return string.format('%.6f', time) end

local function get(field)
  if not fields then
    fields = {}
    if redis.call('HLEN', record) > MAX_FIELDS then error('the record of a job is damaged') end
    local flat = redis.call('HGETALL', record)
    for at = 1, #flat, 2 do fields[flat[at]] = flat[at + 1] end
  end
  return fields[field]
end

-- Sets fields of the record; their names and values are in turn.
local function set(...)
  redis.call('HSET', record, ...)
  local flat = fields and {...} or {}
  for at = 1, #flat, 2 do fields[flat[at]] = flat[at + 1] end
end

local function number(field) return tonumber(get(field) or 0) end
local function is_stopped() return get('state') == 'cancelled' or get('state') == 'failed' end

-- Adds to what is counted of all jobs, which outlives them.
local function tally(field, count) counts[field] = (counts[field] or 0) + count end

-- Workers take messages from the queue of single calls first: someone waits for the answers. Images of
-- other programs, which may be very many, have a queue that takes turns with both.
local function own_queue() return get('task') and BOOKED or get('call') and calls_queue or queue end
local function own_watermark() return get('task') and watermark .. ':images' or watermark end

-- The keys of a network that jobs have brought, if there is one: the network, and who uses it.
local function network_keys(name)
  return name and {NETWORK .. name, NETWORK .. name .. ':users'} or {}
end

-- Stores a network, if it is given, and notes who uses it. Returns false if it is not there. One that is
-- there keeps its expiry: another job may need it for longer.
local function lend(name, payload, user)
  local network, users = unpack(network_keys(name))
  if payload ~= '' then redis.call('SET', network, payload, 'NX') end
  if redis.call('EXISTS', network) == 0 then return false end
  redis.call('SADD', users, user)
  return true
end

-- Deletes what workers need of a job, and the network that it has brought, unless others use it.
local function delete_work()
  redis.call('DEL', unpack(work))
  local network, users = unpack(network_keys(get('network')))
  if network then
    redis.call('SREM', users, get('id'))
    if redis.call('EXISTS', users) == 0 then redis.call('DEL', network) end
  end
end

-- Postpones the expiry of all keys of a job once the step is done.
local function touch() is_changed = true end

-- Ends the changes to a job.
local function settle()
  local ttl = is_changed and get('ttl')
  is_changed = false
  if not ttl then return end -- nothing has changed; or the record is gone, and the other keys expire
  for _, key in ipairs({record, results, truths, done, unpack(work)}) do redis.call('EXPIRE', key, ttl) end
  if get('call') then redis.call('EXPIRE', KNOWN .. get('known'), ttl) end
  for _, key in ipairs(network_keys(get('network'))) do
    if redis.call('TTL', key) < tonumber(ttl) then redis.call('EXPIRE', key, ttl) end
  end
  if redis.call('TTL', jobs) < tonumber(ttl) then redis.call('EXPIRE', jobs, ttl) end
end

-- Creates the record. `base` is the oldest chunk that is not collected, `base_row` its first row. The
-- rest are names and values of fields in turn.
local function create(base, base_row, ...)
  set('state', 'feeding', 'created', stamp(now), 'stored', base,
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
  if tonumber(base) > number('stored') then set('stored', base, 'published', base) end
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
  for _, part in ipairs({job, task or '', id or '', text or ''}) do
    if #part > MAX_QUEUED_BYTES then error('the record of job ' .. job:sub(1, 20) .. ' is damaged') end
  end
  if not id then
    task, id = 'digitq.classify', string.format('%s-%d-%s', job, n, time)
    local count = redis.call('HGET', rows, n) or '?'
    local noun = count == '1' and 'image' or 'images'
    text = string.format('job %s, chunk %d, %s %s', job, n, count, noun)
  end
  local headers = {lang = 'py', task = task, id = id, root_id = id, argsrepr = text, kwargsrepr = ''}
  local content = {{job, tonumber(n)}, {}, {}} -- arguments, keyword arguments, callbacks
  local sent = message(id, content, headers, '', queue)
  left = left - #sent
  redis.call('ZADD', queued, time, n)
  redis.call('LPUSH', own_queue(), sent)
  tell_flower('sent', id, {name = task, args = text, kwargs = ''})
end

-- Publishes stored chunks, up to `in_flight` at a time so that jobs share the workers, and more while
-- the queue is empty. Its callers have changed the job, so it also postpones the expiry of all keys.
local function publish_next()
  local in_flight = redis.call('ZCARD', queued) + redis.call('ZCARD', running)
  local limit, published, stored = number('in_flight'), number('published'), number('stored')
  while left > 0 and published < stored and (in_flight < limit or redis.call('LLEN', own_queue()) == 0) do
    publish(published)
    published, in_flight = published + 1, in_flight + 1
  end
  set('published', published)
  touch()
end

-- Creates a job of one chunk and publishes it.
local function create_call(count, payload, call, ...)
  create(0, 0, ...)
  redis.call('HSET', chunks, 0, payload)
  redis.call('HSET', rows, 0, count)
  set('state', 'running', 'stored', 1, 'images', count, 'bytes', #payload, 'call', call)
  publish_next()
end

-- Hands over the answer to single calls, and deletes all else of the job. The answer to an image of
-- another program is what Celery keeps of its task; it is empty if the image gets none.
local function answer(payload)
  local id, task, ttl = get('id'), get('task'), get('ttl')
  redis.call('SREM', active, id)
  redis.call('ZREM', jobs, id)
  redis.call('DEL', record, done, unpack(work))
  use(record)
  if not task then
    redis.call('RPUSH', results, payload)
    redis.call('EXPIRE', results, ttl)
  elseif payload ~= '' then
    redis.call('SET', ANSWER .. task, payload, 'EX', RESULT_SECONDS)
    redis.call('PUBLISH', ANSWER .. task, payload)
  end
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
    set('state', 'done', 'finished', stamp(now), 'bytes', 0)
    redis.call('SREM', active, get('id'))
    delete_work()
    tell_end()
  end
end

local function publish_again(n)
  redis.call('ZREM', running, n) -- even if it is not there: a step begins by removing
  publish(n)
  set('sent_again', number('sent_again') + 1)
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

-- Ends the script with the reply of its step.
local function finish(reply)
  settle()
  for field, count in pairs(counts) do redis.call('HINCRBY', counters, field, count) end
  return reply
end

local steps = {} -- by name
