-- The ledger: the state of one job in Redis, changed in atomic steps. ARGV[1] names the step, ARGV[2]
-- the beginning of the channels on which Flower hears of tasks.
-- KEYS: the job's record, the watermark (when the latest begun chunk was published), Celery's queue,
-- the set of active jobs, all jobs by creation time, the queue of single calls, the jobs whose end no
-- worker has logged, what is counted of all jobs, the workers that live, and how far the last sweep came.
-- A chunk is stored, then published (queued: its message is in Celery's queue), then begun (running),
-- then completed. The first to complete it wins; all other messages for it change nothing.
-- A step removes before it adds: if Redis is out of memory, it refuses a script whose first write adds
-- something, but lets one go on that began by removing.
-- script.py gives a step its arguments by the names of its parameters.
-- script.py defines the names in capital letters in front of this file.
local record, watermark, queue, active, jobs, calls_queue, ended, counters, workers, sweeping = unpack(KEYS)
local chunks, rows, queued, running, results, done, attempts, poison_rows, failures, known, begun, work

-- Makes the steps change the job with this record.
local function use(key)
  record = key
  chunks, rows, queued, running = key .. ':chunks', key .. ':rows', key .. ':queued', key .. ':running'
  results, done, attempts, begun = key .. ':results', key .. ':done', key .. ':attempts', key .. ':begun'
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

-- Workers take messages from the queue of single calls first: someone waits for the answers.
local function own_queue() return get('call') and calls_queue or queue end

local function touch()
  local ttl = get('ttl')
  if not ttl then return end -- the record is gone, and the other keys expire
  for _, key in ipairs({record, results, done, unpack(work)}) do redis.call('EXPIRE', key, ttl) end
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
  redis.call('ZADD', jobs, get('created'), id)
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
  local job, time, task = get('id'), stamp(now), 'digitq.classify'
  local id = string.format('%s-%d-%s', job, n, time)
  local count = redis.call('HGET', rows, n) or '?'
  local noun = count == '1' and 'image' or 'images'
  local text = string.format('job %s, chunk %d, %s %s', job, n, count, noun)
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

local steps = {}

-- Creates a job that is about to be fed.
function steps.open(...) create(0, 0, ...) end

-- Stores what is known of the job's numbers, unless it is there: Redis may have lost it.
function steps.know(base, base_row, payload, ...)
  if not recover(base, base_row, ...) or get('state') == 'done' then return end
  if redis.call('EXISTS', known) == 1 then return end
  redis.call('SET', known, payload)
  add('bytes', #payload)
  touch()
end

-- Enters a chunk whose payload was just added to the chunks. Returns how many chunks are stored: no
-- more than n if Redis has lost some before it; nothing if the job was cancelled or has failed.
function steps.dispatch(base, base_row, n, count, ...)
  n, count = tonumber(n), tonumber(count)
  if not recover(base, base_row, ...) then
    redis.call('HDEL', chunks, n)
    return nil
  end
  redis.call('HSET', record, 'fed', stamp(now), 'held', 0)
  local stored = number('stored')
  if n ~= stored then -- it is too early, or sent again because the reply was lost and may be done
    if redis.call('HEXISTS', rows, n) == 0 then redis.call('HDEL', chunks, n) end
    return stored
  end
  redis.call('HSET', rows, n, count)
  redis.call('HSET', record, 'stored', n + 1)
  add('images', count)
  add('bytes', redis.call('HSTRLEN', chunks, n))
  publish_next()
  return n + 1
end

-- Notes that all `total` chunks are stored. Returns what `dispatch` returns.
function steps.seal(base, base_row, total, ...)
  if not recover(base, base_row, ...) then return nil end
  local stored = number('stored')
  if tonumber(total) <= stored and get('state') == 'feeding' then
    redis.call('HSET', record, 'state', 'running')
    redis.call('XADD', done, 'MAXLEN', '~', 100, '*', 'sealed', total) -- all results may be there
    touch()
    finish_if_done()
  end
  return stored
end

-- Creates a job of one chunk, for single calls. `call` is 'shared' if a worker may classify them
-- together with those of other clients. What is known of their numbers is kept for others under its
-- `name`. Returns 0 if it has to be sent, nothing if the job was cancelled or has failed.
function steps.submit(count, payload, known_payload, call, name, ...)
  if redis.call('EXISTS', record) == 1 then return not is_stopped() end -- the reply was lost
  if known_payload ~= '' then redis.call('SET', KNOWN .. name, known_payload) end
  if name ~= '' and redis.call('EXISTS', KNOWN .. name) == 0 then return 0 end
  create(0, 0, ...)
  redis.call('HSET', chunks, 0, payload)
  redis.call('HSET', rows, 0, count)
  redis.call('HSET', record, 'state', 'running', 'stored', 1, 'images', count,
    'bytes', #payload, 'call', call)
  publish_next()
  return true
end

-- Notes that the submitter is alive, even if it has nothing to store, and how many images it holds
-- because there is no room for them.
function steps.heartbeat(held)
  if redis.call('EXISTS', record) == 0 then return end
  redis.call('HDEL', record, 'fed')
  redis.call('HSET', record, 'fed', stamp(now), 'held', held)
  touch()
end

-- Begins a chunk, whose payload the worker reads in the same round trip. Returns the model; how often
-- the chunk was begun; the name of what is known of the job's numbers; the job's source, if this is its
-- first chunk and it is no single call; and whether `begin_calls` may find other calls for it. Returns
-- an empty table if there is nothing to do.
function steps.begin(n, worker)
  local published, model = redis.call('ZSCORE', queued, n), get('model')
  if not published or not model or redis.call('HEXISTS', chunks, n) == 0 then return {} end
  redis.call('ZREM', queued, n)
  redis.call('ZADD', running, stamp(now), n)
  redis.call('HSET', begun, n, stamp(now) .. ' ' .. worker)
  tally('begun', 1)
  local mark = tonumber(redis.call('GET', watermark) or 0)
  local moves = tonumber(published) > mark or mark > now + 1 -- or the clock was set back
  if moves and not get('call') then -- a call overtakes chunks that are not lost
    redis.call('SET', watermark, published, 'EX', get('ttl'))
  end
  local attempt = redis.call('HINCRBY', attempts, n, 1)
  local most = number('most_attempts')
  if attempt > most then redis.call('HSET', record, 'most_attempts', attempt) end
  publish_next()
  local is_first = most == 0 and not get('call')
  local shares = attempt == 1 and get('call') == 'shared' and redis.call('LLEN', calls_queue) > 0
  return {model, attempt, get('known') or '', is_first and get('source'), shares and 1 or 0}
end

-- Begins other calls than the job's own that wait at the front of the queue, up to `count` calls and
-- `images`: such as may be shared, want the same model, and were never begun. Returns the id, the
-- payload and the message's id of each.
function steps.begin_calls(count, images, worker)
  local taken, model = {}, get('model')
  images = tonumber(images)
  while #taken < 3 * count do
    local is_read, id, message_id = pcall(function()
      local message = cjson.decode(redis.call('LINDEX', calls_queue, -1))
      return cjson.decode(message.body)[1][1], message.headers.id
    end)
    if not is_read or type(id) ~= 'string' or type(message_id) ~= 'string' then break end
    use(JOB .. id)
    images = images - tonumber(redis.call('HGET', rows, 0) or 0)
    if get('call') ~= 'shared' or get('model') ~= model or images < 0 then break end
    if redis.call('EXISTS', attempts) == 1 then break end
    redis.call('RPOP', calls_queue)
    if steps.begin(0, worker)[1] then
      table.insert(taken, id)
      table.insert(taken, redis.call('HGET', chunks, 0))
      table.insert(taken, message_id)
    end
  end
  return taken
end

-- Puts off the deadline of a running chunk; if a worker is about to read an image that may kill it,
-- `noted` says which. Returns 0 if the worker may stop: another one was first, or the job has ended.
function steps.renew(n, noted)
  if get('ttl') and redis.call('ZREM', running, n) == 1 then
    redis.call('ZADD', running, stamp(now), n)
    if noted then redis.call('HSET', poison_rows, n, noted) end
    touch()
  end
  return redis.call('HEXISTS', chunks, n)
end

-- A worker could not classify a chunk. Returns how often that has happened.
function steps.fail(n)
  if redis.call('HEXISTS', chunks, n) == 0 then return 0 end
  local count = redis.call('HINCRBY', failures, n, 1)
  touch()
  return count
end

-- Notes which kind of worker has answered, up to eight kinds.
local function note_fingerprint(fingerprint)
  local noted = get('fingerprints') or ''
  if #noted < 8 * (#fingerprint + 1) and not string.find(noted, fingerprint, 1, true) then
    redis.call('HSET', record, 'fingerprints', noted .. fingerprint .. ' ')
  end
end

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

-- Takes the first result of a chunk, whose parts `ChunkResult` explains, and returns how far the job
-- is then; false if it is not the first. The worker measures its longest silence, since the time
-- that a result waits for a stalled Redis does not count.
function steps.complete(
  n, payload, failed, kind, image_seconds, silent_seconds, review, work_seconds, worker, fingerprint)
  local count, size = tonumber(redis.call('HGET', rows, n)), redis.call('HSTRLEN', chunks, n)
  if not get('ttl') or not count then return false end -- the record is gone, or new, without the chunk
  if redis.call('ZREM', queued, n) + redis.call('ZREM', running, n) == 0 then return false end
  local silent_ms, pace_ns = math.floor(1e3 * silent_seconds), math.floor(1e9 * image_seconds)
  if silent_ms > number('silent_ms') then redis.call('HSET', record, 'silent_ms', silent_ms) end
  add('bytes', -size)
  for _, key in ipairs({chunks, rows, attempts, poison_rows, failures, begun}) do redis.call('HDEL', key, n) end
  redis.call('HSET', results, n, payload)
  add('done_chunks', 1)
  add('done_images', count)
  add('failed', failed)
  add('review', review)
  add('timed_images', count) -- unlike the others, not of a chunk that was done by an older worker
  add('work_us', math.floor(1e6 * work_seconds))
  note_fingerprint(fingerprint)
  tally('completed', 1)
  tally('bytes', size)
  steps.count(get('model'), count, failed, review, work_seconds, worker)
  if pace_ns > 0 then redis.call('HSET', record, kind .. '_ns', pace_ns) end
  redis.call('XADD', done, 'MAXLEN', '~', 100, '*', 'chunk', n)
  publish_next()
  finish_if_done()
  return redis.call('HMGET', record, 'done_images', 'images', 'failed', 'state')
end

local function publish_again(n)
  redis.call('ZREM', running, n) -- even if it is not there: a step begins by removing
  publish(n)
  add('sent_again', 1)
  tally('sent_again', 1)
  touch() -- only here, or a job that nobody works on could never expire
end

-- The process of `worker` that was at a chunk has died: publishes the chunk again if it is still that
-- worker's. After QUICK_ATTEMPTS it waits for its deadline: a worker whose processes die at once must
-- not use up all attempts before others are there.
function steps.requeue(n, worker)
  local by = string.match(redis.call('HGET', begun, n) or '', ' (.*)')
  local attempt = tonumber(redis.call('HGET', attempts, n) or 0)
  if by == worker and attempt <= QUICK_ATTEMPTS and redis.call('ZSCORE', running, n) then
    publish_again(n)
  end
end

-- Completes calls of `begin_calls`, whose ids, message ids and what `complete` takes follow in turn.
function steps.complete_calls(text, ...)
  local parts = {...}
  for start = 1, #parts, 12 do
    use(JOB .. parts[start])
    steps.complete(unpack(parts, start + 2, start + 11))
    local message_id, seconds = parts[start + 1], tonumber(parts[start + 9])
    if message_id ~= '' then tell_flower('succeeded', message_id, {result = text, runtime = seconds}) end
  end
end

-- Publishes overdue chunks again.
-- A running chunk is overdue after `deadline` seconds, or PATIENCE times the longest silence of the
-- job's workers if that is more. A queued chunk is overdue if its message is lost: after the deadline,
-- if its queue is empty or if chunks have been begun that were published a deadline later. A chunk
-- with a time in the future is overdue: the clock was set back.
function steps.sweep_job(deadline)
  deadline = tonumber(deadline)
  if redis.call('EXISTS', record) == 0 then
    local id = string.match(record, '[^:]+$')
    redis.call('SREM', active, id)
    redis.call('ZREM', jobs, id)
    return
  end
  local lost = now - deadline
  if redis.call('LLEN', own_queue()) > 0 then
    lost = math.min(lost, tonumber(redis.call('GET', watermark) or 0) - deadline)
  end
  local patience = math.max(deadline, PATIENCE * number('silent_ms') / 1000)
  local function publish_range(set, first, last)
    for _, n in ipairs(redis.call('ZRANGEBYSCORE', set, first, last)) do publish_again(n) end
  end
  publish_range(queued, '-inf', stamp(lost))
  publish_range(running, '-inf', stamp(now - patience))
  for _, set in ipairs({queued, running}) do publish_range(set, stamp(now + 1), '+inf') end
end

-- The headers and the tag of a message in the form of kombu, if it is of an image from another program;
-- otherwise nothing.
local function read_image(message)
  if not string.find(message, '"digitq.classify_image"', 1, true) then return end
  local is_read, task, headers, tag = pcall(function()
    local content = cjson.decode(message)
    return content.headers.task, content.headers, content.properties.delivery_tag
  end)
  if is_read and task == 'digitq.classify_image' and type(tag) == 'string' then return headers, tag end
end

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
    pcall(steps.sweep_job, deadline) -- whoever may submit can damage a job's keys, which stops no other
  end
  adopt_images()
  return true
end

-- A worker's heartbeat: what it says of itself is `about`, which expires after `seconds`. Returns how
-- many images the worker has classified, and the time.
function steps.note_worker(name, seconds, about)
  local worker = WORKER .. name
  redis.call('HDEL', worker, 'heard')
  redis.call('HSET', worker, 'heard', stamp(now), 'about', about)
  redis.call('EXPIRE', worker, seconds)
  redis.call('ZADD', workers, stamp(now), name)
  redis.call('ZREMRANGEBYSCORE', workers, '-inf', stamp(now - seconds))
  redis.call('EXPIRE', workers, seconds)
  return {tonumber(redis.call('HGET', worker, 'images') or 0), stamp(now)}
end

-- Deletes the results of the first `count` chunks, which a file has. They have `images` images.
function steps.free(count, images)
  local freed = number('freed')
  if is_stopped() or tonumber(count) <= freed then return end
  for n = freed, count - 1 do redis.call('HDEL', results, n) end
  if get('ttl') then redis.call('HSET', record, 'freed', count, 'freed_images', images) end
end

-- Returns the result of a job of one chunk. Once it is there, the job and its record are deleted.
function steps.take()
  local result = redis.call('HGET', results, 0)
  if result then
    redis.call('ZREM', jobs, get('id'))
    redis.call('DEL', record, results, done, unpack(work))
  end
  return result
end

-- Ends a job: collected, cancelled or failed. Only its record stays.
function steps.close(state, reason)
  if redis.call('EXISTS', record) == 0 then return end
  redis.call('SREM', active, get('id'))
  redis.call('DEL', results, unpack(work))
  if state ~= get('state') and not is_stopped() then -- the first end counts
    redis.call('HSET', record, 'state', state, 'bytes', 0)
    if reason then redis.call('HSET', record, 'reason', reason) end
    -- A job that was done keeps its end
    if redis.call('HSETNX', record, 'finished', stamp(now)) == 1 then tell_end() end
  end
  redis.call('XADD', done, '*', state, 1) -- wakes those who wait for results
  redis.call('EXPIRE', done, 10)
end

return steps[ARGV[1]](unpack(ARGV, 3))
