-- Completes calls of `begin_calls`, whose ids, message ids and what `complete` takes follow in turn.
function steps.complete_calls(text, ...)
  local parts = {...}
  for start = 1, #parts, 13 do
    use(JOB .. parts[start])
    steps.complete(unpack(parts, start + 2, start + 12))
    local message_id, seconds = parts[start + 1], tonumber(parts[start + 9])
    if message_id ~= '' then tell_flower('succeeded', message_id, {result = text, runtime = seconds}) end
  end
end
