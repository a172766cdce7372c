-- Notes that the job uses the network that it names, and stores it, unless others have. Returns 1 if it
-- has to be sent.
function steps.lend(base, base_row, payload, ...)
  if not recover(base, base_row, ...) or get('state') == 'done' then return end
  if not lend(get('network'), payload, get('id')) then return 1 end
  touch()
end
