-- Stores what was loaded and lets go of the lock. Needs no look at the versions: an entry that was overtaken
-- while it was loaded can never be valid. One that was loaded later is not overwritten.
-- KEYS: meta, entry, lock.
-- ARGV: marker, epoch, as-of sequence, life in ms, tag key prefix, life of a version in ms, lock owner, entry, tags...
-- Returns: 1 stored, 0 not stored.
local meta = redis.call('HMGET', KEYS[1], 'marker', 'sequence')
if meta[1] ~= ARGV[1] then
  return 0
end
local stored = 0
local epoch, as_of = string.match(redis.call('GETRANGE', KEYS[2], 0, 63), '^lockstep1 (%x+) (%d+) ')
if epoch ~= ARGV[2] or tonumber(as_of) <= tonumber(ARGV[3]) then
  redis.call('SET', KEYS[2], ARGV[8], 'PX', ARGV[4])
  for i = 9, #ARGV do
    local key = ARGV[5] .. ARGV[i]
    -- A version outlives the entries that depend on it.
    if redis.call('PEXPIRE', key, ARGV[6]) == 0 then
      redis.call('SET', key, meta[2], 'PX', ARGV[6])
    end
  end
  stored = 1
end
if redis.call('GET', KEYS[3]) == ARGV[7] then
  redis.call('DEL', KEYS[3])
end
return stored
