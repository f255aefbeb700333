-- An entry, if it is valid; else a sequence under which to load it, and perhaps the right to be the one who does.
-- An entry is valid if no tag of it was invalidated after the sequence as of which it was loaded. A tag without
-- a version is given the present sequence: no lower than any version it may have had.
-- KEYS: meta, entry, lock.
-- ARGV: marker, epoch, tag key prefix, life of a version in ms, lock owner or '', life of the lock in ms, tags...
-- Returns: {'HIT', sequence, ms to live, entry} or {'MISS', sequence, lock, 'absent' or 'stale'} with
-- lock = 0 not asked for, 1 acquired, 2 held by another; or {'EPOCH', 0, 0, ''}.
local meta = redis.call('HMGET', KEYS[1], 'marker', 'sequence')
if meta[1] ~= ARGV[1] then
  return {'EPOCH', '0', 0, ''}
end
local prefix, version_life = ARGV[3], ARGV[4]
local present = tonumber(meta[2])

-- The highest version of these tags, most of which are expected to have one.
local function newest(tags)
  local highest = 0
  for first = 1, #tags, 1000 do
    local keys = {}
    for i = first, math.min(first + 999, #tags) do
      keys[#keys + 1] = prefix .. tags[i]
    end
    for i, version in ipairs(redis.call('MGET', unpack(keys))) do
      if not version then
        redis.call('SET', keys[i], meta[2], 'PX', version_life)
        version = present
      end
      highest = math.max(highest, tonumber(version))
    end
  end
  return highest
end

local reason = 'absent'
local entry = redis.call('GET', KEYS[2])
if entry then
  reason = 'stale'
  local header_end = string.find(entry, '\n', 1, true)
  local tags_end = header_end and string.find(entry, '\n', header_end + 1, true)
  local epoch, as_of = string.match(entry, '^lockstep1 (%x+) (%d+) ')
  if tags_end and epoch == ARGV[2] then
    local tags = {}
    for tag in string.gmatch(string.sub(entry, header_end + 1, tags_end - 1), '%S+') do
      tags[#tags + 1] = tag
    end
    if newest(tags) <= tonumber(as_of) then
      return {'HIT', meta[2], redis.call('PTTL', KEYS[2]), entry}
    end
  end
end

local tags = {}
for i = 7, #ARGV do
  tags[#tags + 1] = ARGV[i]
end
newest(tags)
local lock = 0
if ARGV[5] ~= '' then
  lock = redis.call('SET', KEYS[3], ARGV[5], 'NX', 'PX', ARGV[6]) and 1 or 2
end
return {'MISS', meta[2], lock, reason}
