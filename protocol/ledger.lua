-- The ledger: one job's books in Redis, changed in single steps.
-- KEYS[1] the job's record. KEYS[2] the watermark. KEYS[3] the broker's queue. KEYS[4] the set
-- of active jobs. KEYS[5] all jobs by time created. KEYS[6] the last message of a single call.
-- ARGV[1] names the step.
-- A chunk is stored, then published (queued: its message is put into the broker's queue), then begun
-- (running), then completed. The first to complete it wins; every other delivery of it finds it
-- gone and changes nothing. PATIENCE comes from ledger.py, in front of all this.
local record, watermark, queue, active, jobs, last_call = unpack(KEYS)
local chunks, rows = record .. ':chunks', record .. ':rows'
local queued, running = record .. ':queued', record .. ':running'
local results, done = record .. ':results', record .. ':done'
local attempts, poison_rows = record .. ':attempts', record .. ':poison_rows'
local failures = record .. ':failures'
local work = {chunks, rows, queued, running, attempts, poison_rows, failures}

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

local function stamp(time) return string.format('%.6f', time) end
local function get(field) return redis.call('HGET', record, field) end
local function number(field) return tonumber(get(field) or 0) end

local function touch()
  local ttl = get('ttl')
  if not ttl then return end -- the record is gone, and the rest has its time
  for _, key in ipairs({record, results, done, unpack(work)}) do redis.call('EXPIRE', key, ttl) end
  if redis.call('TTL', jobs) < tonumber(ttl) then redis.call('EXPIRE', jobs, ttl) end
end

-- The fields are names and values in turn; base is the first chunk that is not yet collected.
local function create(base, base_row, ...)
  redis.call('HSET', record, 'state', 'feeding', 'created', stamp(now), 'stored', base,
    'published', base, 'done_chunks', base, 'images', base_row, 'done_images', base_row, ...)
  local id, kin = get('id'), string.match(record, '.*:')
  for _, old in ipairs(redis.call('ZRANGE', jobs, 0, 1)) do -- so that those that expired go in time
    if redis.call('EXISTS', kin .. old) == 0 then redis.call('ZREM', jobs, old) end
  end
  redis.call('SADD', active, id)
  redis.call('ZADD', jobs, get('created'), id)
  touch()
end

-- A message is put into the queue, at whose right end it is taken out: of single calls', for which
-- somebody waits, before all others, and behind those of calls that still are there.
local function enqueue(message)
  if not get('call') then return redis.call('LPUSH', queue, message) end
  local last = redis.call('GET', last_call)
  if not last or redis.call('LINSERT', queue, 'BEFORE', last, message) < 1 then
    redis.call('RPUSH', queue, message)
  end
  redis.call('SET', last_call, message, 'EX', get('ttl'))
end

-- A chunk is queued, and its message with it: Celery's, version 2, as kombu keeps it in a list. The
-- arguments' text is what Flower shows.
local function publish(n)
  local job, time = get('id'), stamp(now)
  local id = string.format('%s-%d-%s', job, n, time)
  local text = string.format('job %s, chunk %d, %s images', job, n, redis.call('HGET', rows, n) or '?')
  local message = {
    body = cjson.encode({{job, tonumber(n)}, {}, {}}), -- arguments, keyword arguments, what follows
    headers = {lang = 'py', task = 'digitq.classify', id = id, root_id = id, argsrepr = text, kwargsrepr = ''},
    properties = {
      correlation_id = id, delivery_tag = id, delivery_mode = 2, priority = 0, body_encoding = 'utf-8',
      delivery_info = {exchange = '', routing_key = queue},
    },
    ['content-type'] = 'application/json',
    ['content-encoding'] = 'utf-8',
  }
  redis.call('ZADD', queued, time, n)
  enqueue(cjson.encode(message))
end

-- Of what a job has stored only a few chunks are in flight, so that jobs share the workers; more
-- where these have taken all that there is.
local function publish_next()
  local in_flight = redis.call('ZCARD', queued) + redis.call('ZCARD', running)
  local limit, published, stored = number('in_flight'), number('published'), number('stored')
  while published < stored and (in_flight < limit or redis.call('LLEN', queue) == 0) do
    publish(published)
    published, in_flight = published + 1, in_flight + 1
  end
  redis.call('HSET', record, 'published', published)
end

local function finish_if_done()
  if get('state') == 'running' and number('done_chunks') == number('stored') then
    redis.call('HSET', record, 'state', 'done', 'finished', stamp(now))
    redis.call('SREM', active, get('id'))
    redis.call('DEL', unpack(work))
  end
end

-- A Redis that lost its last second may know less than was already collected.
local function catch_up(base)
  if tonumber(base) > number('stored') then
    redis.call('HSET', record, 'stored', base, 'published', base)
  end
end

-- A running chunk has until the deadline again. The removal comes first: a Redis that is out of
-- memory refuses to add, but not in the midst of a script.
local function put_off(n)
  if not get('ttl') or redis.call('ZREM', running, n) == 0 then return false end
  redis.call('ZADD', running, stamp(now), n)
  return true
end

local steps = {}

-- A job that is about to be fed.
function steps.open(...)
  create(0, 0, ...)
end

-- A chunk, just put among the chunks, is entered. Gives how many chunks are stored: not more than n
-- where Redis has lost some that must come first; nothing where the job was cancelled.
function steps.dispatch(base, base_row, n, count, ...)
  n, count = tonumber(n), tonumber(count)
  if redis.call('EXISTS', record) == 0 then create(base, base_row, ...) end
  if get('state') == 'cancelled' then
    redis.call('HDEL', chunks, n)
    return nil
  end
  redis.call('HSET', record, 'fed', stamp(now))
  catch_up(base)
  if n > number('stored') then
    redis.call('HDEL', chunks, n)
    return number('stored')
  end
  if n < number('stored') then -- sent again since the reply was lost, and done perhaps
    if redis.call('HEXISTS', rows, n) == 0 then redis.call('HDEL', chunks, n) end
    return number('stored')
  end
  redis.call('HSET', rows, n, count)
  redis.call('HSET', record, 'stored', n + 1)
  redis.call('HINCRBY', record, 'images', count)
  redis.call('HINCRBY', record, 'bytes', redis.call('HSTRLEN', chunks, n))
  publish_next()
  touch()
  return n + 1
end

-- All chunks are stored; total is their number. Gives what dispatch gives.
function steps.seal(base, base_row, total, ...)
  if redis.call('EXISTS', record) == 0 then create(base, base_row, ...) end
  if get('state') == 'cancelled' then return nil end
  catch_up(base)
  if tonumber(total) > number('stored') then return number('stored') end
  if get('state') == 'feeding' then
    redis.call('HSET', record, 'state', 'running')
    redis.call('XADD', done, 'MAXLEN', '~', 100, '*', 'sealed', total) -- the last result may be taken
    touch()
    finish_if_done()
  end
  return number('stored')
end

-- A job that is one chunk: single calls. Gives nothing where it was cancelled.
function steps.submit(count, payload, ...)
  if redis.call('EXISTS', record) == 1 then -- sent again since the reply was lost
    return get('state') ~= 'cancelled'
  end
  create(0, 0, ...)
  redis.call('HSET', chunks, 0, payload)
  redis.call('HSET', rows, 0, count)
  redis.call('HSET', record, 'state', 'running', 'stored', 1, 'images', count, 'bytes', #payload,
    'call', 1)
  publish_next()
  touch()
  return true
end

-- Its submitter lives, though it has nothing to store.
function steps.heartbeat()
  if redis.call('EXISTS', record) == 0 then return end
  redis.call('HDEL', record, 'fed') -- first, as in put_off
  redis.call('HSET', record, 'fed', stamp(now))
  touch()
end

-- The record's names and values in turn, and how many seconds the submitter was not heard of.
function steps.read()
  local heard = tonumber(get('fed') or get('created') or now)
  return {redis.call('HGETALL', record), math.floor(now - heard)}
end

-- A worker starts on a chunk: gives the model, and how often it was begun. (The payload is asked for
-- along with this.)
function steps.begin(n)
  local published, model = redis.call('ZSCORE', queued, n), get('model')
  if not published or not model or redis.call('HEXISTS', chunks, n) == 0 then return {} end
  redis.call('ZREM', queued, n)
  redis.call('ZADD', running, stamp(now), n)
  local mark = tonumber(redis.call('GET', watermark) or 0)
  local moves = tonumber(published) > mark or mark > now + 1 -- the clock was set back
  if moves and not get('call') then -- which has passed others
    redis.call('SET', watermark, published, 'EX', get('ttl'))
  end
  local attempt = redis.call('HINCRBY', attempts, n, 1)
  if attempt > number('most_attempts') then redis.call('HSET', record, 'most_attempts', attempt) end
  publish_next()
  touch()
  return {model, attempt}
end

-- A worker is still at a chunk, which has until the deadline again. Gives 0 where there is nothing
-- left to do: another was first, or the job was cancelled.
function steps.renew(n)
  if put_off(n) then touch() end
  return redis.call('HEXISTS', chunks, n)
end

-- A worker is about to touch an image that it may die of; it has until the deadline again.
function steps.note_poison_rows(n, rows)
  if not put_off(n) then return end
  redis.call('HSET', poison_rows, n, rows)
  touch()
end

-- A worker could not classify a chunk: how often that was so by now.
function steps.fail(n)
  if redis.call('HEXISTS', chunks, n) == 0 then return 0 end
  local count = redis.call('HINCRBY', failures, n, 1)
  touch()
  return count
end

-- n, how long this attempt was silent at most on the worker's clock, result, failed rows, their kind
-- and how long one took, or 0: gives nothing where another was first. (Of a Redis that stood still, a
-- result that waits for it is no silence.)
function steps.complete(n, silent_ms, result, failed, kind, pace_ns)
  if not get('ttl') then return false end -- the record is gone
  if redis.call('ZREM', queued, n) + redis.call('ZREM', running, n) == 0 then return false end
  local count = tonumber(redis.call('HGET', rows, n))
  if tonumber(silent_ms) > number('silent_ms') then
    redis.call('HSET', record, 'silent_ms', silent_ms)
  end
  redis.call('HINCRBY', record, 'bytes', -redis.call('HSTRLEN', chunks, n))
  for _, key in ipairs({chunks, rows, attempts, poison_rows, failures}) do redis.call('HDEL', key, n) end
  redis.call('HSET', results, n, result)
  redis.call('HINCRBY', record, 'done_chunks', 1)
  redis.call('HINCRBY', record, 'done_images', count)
  redis.call('HINCRBY', record, 'failed', failed)
  if tonumber(pace_ns) > 0 then redis.call('HSET', record, kind .. '_ns', pace_ns) end
  redis.call('XADD', done, 'MAXLEN', '~', 100, '*', 'chunk', n)
  publish_next()
  touch()
  finish_if_done()
  return true
end

-- deadline in seconds: publishes again what is overdue. A begun chunk is overdue past the
-- deadline, raised where the job's workers are silent for longer. A queued one only where its message
-- is lost: the queue is empty, or chunks published a deadline after it have been begun. What is of
-- the future is overdue too: the clock was set back.
function steps.sweep(deadline)
  deadline = tonumber(deadline)
  if redis.call('EXISTS', record) == 0 then
    redis.call('SREM', active, string.match(record, '[^:]+$'))
    return
  end
  if get('state') ~= 'feeding' and get('state') ~= 'running' then return end
  local lost = now - deadline
  if redis.call('LLEN', queue) > 0 then
    lost = math.min(lost, tonumber(redis.call('GET', watermark) or 0) - deadline)
  end
  local patience = math.max(deadline, PATIENCE * number('silent_ms') / 1000)
  local overdue = {}
  local function find(set, first, last)
    for _, n in ipairs(redis.call('ZRANGEBYSCORE', set, first, last)) do table.insert(overdue, n) end
  end
  find(queued, '-inf', stamp(lost))
  find(running, '-inf', stamp(now - patience))
  for _, set in ipairs({queued, running}) do find(set, stamp(now + 1), '+inf') end
  for _, n in ipairs(overdue) do
    redis.call('ZREM', running, n) -- first, whether it is there or not: as in put_off
    publish(n)
  end
  if #overdue > 0 then touch() end -- else a job that nobody works on has its time
end

-- The results of `count` chunks from `start` on; the chunks that follow are collected: dropped.
function steps.results(start, count, ...)
  if select('#', ...) > 0 then redis.call('HDEL', results, ...) end
  local numbers = {}
  for n = start, start + count - 1 do table.insert(numbers, string.format('%d', n)) end
  return redis.call('HMGET', results, unpack(numbers))
end

-- The result of a job that is one chunk; then nothing of the job stays, its record neither.
function steps.take()
  local result = redis.call('HGET', results, 0)
  if result then
    redis.call('ZREM', jobs, get('id'))
    redis.call('DEL', record, results, done, unpack(work))
  end
  return result
end

-- state: collected where an attached producer has all results, or cancelled. Only the record stays. The
-- removals come first, as in put_off.
function steps.close(state, reason)
  if redis.call('EXISTS', record) == 0 then return end
  redis.call('SREM', active, get('id'))
  redis.call('DEL', results, unpack(work))
  if state ~= get('state') then
    redis.call('HSET', record, 'state', state, 'bytes', 0)
    redis.call('HSETNX', record, 'finished', stamp(now)) -- one that was done had ended before
    if reason then redis.call('HSET', record, 'reason', reason) end
  end
  redis.call('XADD', done, '*', state, 1) -- wakes whoever waits for results
  redis.call('EXPIRE', done, 10)
end

return steps[ARGV[1]](unpack(ARGV, 2))
