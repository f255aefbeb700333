-- Invalidates tags: the next sequence becomes their version, and every instance is told, without a gap between.
-- KEYS: meta. ARGV: marker, epoch, channel, origin, tag key prefix, life of a version in ms, tags...
-- Returns: the sequence, or -1 if this is another life of the data.
if redis.call('HGET', KEYS[1], 'marker') ~= ARGV[1] then
  return '-1'
end
redis.call('HINCRBY', KEYS[1], 'sequence', 1)
-- Read back as text: a Lua number would lose its digits.
local sequence = redis.call('HGET', KEYS[1], 'sequence')
local message = {'lockstep1', ARGV[2], sequence, ARGV[4]}
for i = 7, #ARGV do
  redis.call('SET', ARGV[5] .. ARGV[i], sequence, 'PX', ARGV[6])
  message[#message + 1] = ARGV[i]
end
redis.call('PUBLISH', ARGV[3], table.concat(message, ' '))
return sequence
