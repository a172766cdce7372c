-- Notes which kind of worker has answered, up to eight kinds.
local function note_fingerprint(fingerprint)
  local noted = get('fingerprints') or ''
  if #noted < 8 * (#fingerprint + 1) and not string.find(noted, fingerprint, 1, true) then
    redis.call('HSET', record, 'fingerprints', noted .. fingerprint .. ' ')
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
