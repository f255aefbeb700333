-- Makes sure that the sequence exists, with the marker that tells this life of the data from any other.
-- KEYS: meta. ARGV: a fresh marker. Returns: marker, sequence.
redis.call('HSETNX', KEYS[1], 'marker', ARGV[1])
redis.call('HSETNX', KEYS[1], 'sequence', '0')
return redis.call('HMGET', KEYS[1], 'marker', 'sequence')
