-- Creates a job of one chunk, for single calls. `call` is 'shared' if a worker may classify them
-- together with those of other clients. What is known of their numbers is kept for others under its
-- `name`, and so is the network that they name. Returns 0 if these have to be sent, nothing if the job
-- was cancelled or has failed.
function steps.submit(count, payload, known_payload, network_payload, call, name, network, ...)
  -- The reply was lost, or the answer came in the moment in which the caller looked for the job
  if redis.call('EXISTS', record, results) > 0 then return not is_stopped() end
  if known_payload ~= '' then redis.call('SET', KNOWN .. name, known_payload) end
  if name ~= '' and redis.call('EXISTS', KNOWN .. name) == 0 then return 0 end
  if network ~= '' and not lend(network, network_payload, 'calls') then return 0 end
  create_call(count, payload, call, ...)
  return true
end
