-- Notes which kind of worker has answered, up to eight kinds.
local function note_fingerprint(fingerprint)
  local noted = get('fingerprints') or ''
  if #noted < 8 * (#fingerprint + 1) and not string.find(noted, fingerprint, 1, true) then
    set('fingerprints', noted .. fingerprint .. ' ')
  end
end

-- Counts images that a worker has done.
local function count_images(model, count, failed, review, work_seconds, worker)
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
  n, payload, failed, kind, image_seconds, silent_seconds, review, work_seconds, worker, fingerprint, model)
  local count, size = tonumber(redis.call('HGET', rows, n)), redis.call('HSTRLEN', chunks, n)
  if not get('ttl') or not count then return false end -- the record is gone, or new, without the chunk
  if redis.call('ZREM', queued, n) + redis.call('ZREM', running, n) == 0 then return false end
  tally('completed', 1)
  tally('bytes', size)
  count_images(model == '' and get('model') or model, count, failed, review, work_seconds, worker)
  if get('call') then
    answer(payload)
    return {count, count, failed, 'done'}
  end
  for _, key in ipairs({chunks, rows, attempts, poison_rows, failures, begun}) do redis.call('HDEL', key, n) end
  redis.call('HSET', results, n, payload)
  set(
    'silent_ms', math.max(number('silent_ms'), math.floor(1e3 * silent_seconds)),
    'bytes', number('bytes') - size,
    'done_chunks', number('done_chunks') + 1,
    'done_images', number('done_images') + count,
    'failed', number('failed') + failed,
    'review', number('review') + review,
    -- Unlike the others, not of a chunk that was done by an older worker
    'timed_images', number('timed_images') + count,
    'work_us', number('work_us') + math.floor(1e6 * work_seconds)
  )
  note_fingerprint(fingerprint)
  local pace_ns = math.floor(1e9 * image_seconds)
  if pace_ns > 0 then set(kind .. '_ns', pace_ns) end
  redis.call('XADD', done, 'MAXLEN', '~', 100, '*', 'chunk', n)
  publish_next()
  finish_if_done()
  return {get('done_images'), get('images'), get('failed'), get('state')}
end
