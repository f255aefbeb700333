-- Begins another life of the data, when it was found in a state that it had been in before.
-- KEYS: meta. ARGV: the marker of that state, a fresh marker.
if redis.call('HGET', KEYS[1], 'marker') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'marker', ARGV[2])
end
return 1
