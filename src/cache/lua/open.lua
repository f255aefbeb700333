-- Makes sure that the sequence exists, with the marker that tells this life of the data from any other. It begins at the
-- time in milliseconds, above any version that may have outlived a former one.
-- KEYS: meta. ARGV: a fresh marker. Returns: marker, sequence.
local now = redis.call('TIME')
redis.call('HSETNX', KEYS[1], 'marker', ARGV[1])
redis.call('HSETNX', KEYS[1], 'sequence', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
return redis.call('HMGET', KEYS[1], 'marker', 'sequence')
