-- Where the sequence stands. Writes the instance's heartbeat too, so that a replica refuses the call.
-- KEYS: meta, heartbeat. ARGV: marker, heartbeat's life in ms.
-- Returns: the sequence, or -1 if this is another life of the data.
local meta = redis.call('HMGET', KEYS[1], 'marker', 'sequence')
if meta[1] ~= ARGV[1] then
  return '-1'
end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return meta[2]
