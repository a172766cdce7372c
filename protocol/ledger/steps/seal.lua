-- Notes that all `total` chunks are stored. Returns what `dispatch` returns.
function steps.seal(base, base_row, total, ...)
  if not recover(base, base_row, ...) then return nil end
  local stored = number('stored')
  if tonumber(total) <= stored and get('state') == 'feeding' then
    set('state', 'running')
    redis.call('XADD', done, 'MAXLEN', '~', 100, '*', 'sealed', total) -- all results may be there
    touch()
    finish_if_done()
  end
  return stored
end
