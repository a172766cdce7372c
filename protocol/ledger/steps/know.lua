-- Stores what is known of the job's numbers, unless it is there: Redis may have lost it.
function steps.know(base, base_row, payload, ...)
  if not recover(base, base_row, ...) or get('state') == 'done' then return end
  if redis.call('EXISTS', known) == 1 then return end
  redis.call('SET', known, payload)
  set('bytes', number('bytes') + #payload)
  touch()
end
