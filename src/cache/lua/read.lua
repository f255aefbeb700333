-- An entry, if it is valid; else a sequence under which to load it, and perhaps the right to be the one who does.
-- An entry is valid if no tag of it was invalidated after the sequence as of which it was loaded. A tag without
-- a version is given the present sequence: no lower than any version it may have had.
-- KEYS: meta, entry, lock.
-- ARGV: marker, epoch, tag key prefix, life of a version in ms, lock owner or '', life of the lock in ms, ms that an
-- entry is kept beyond its time, ms to live below which an entry is to be renewed, tags...
-- Returns one text, which takes less to read than a list: 'OUTCOME SEQUENCE LOCK MS\nENTRY'.
-- HIT: an entry and its time to live. MISS: perhaps an entry whose time was up that many ms before it is thrown away,
-- while 'stale' in its place says that there was one that is not valid. EPOCH: this is another life of the data.
-- Lock: 0 not asked for, 1 acquired, 2 held by another. Whoever acquires it on a hit is to renew the entry.
local meta = redis.call('HMGET', KEYS[1], 'marker', 'sequence')
if meta[1] ~= ARGV[1] then
  return 'EPOCH 0 0 0\n'
end
local prefix, version_life, fail_safe = ARGV[3], ARGV[4], tonumber(ARGV[7])
local present = tonumber(meta[2])

local function acquire()
  if ARGV[5] == '' then
    return 0
  end
  return redis.call('SET', KEYS[3], ARGV[5], 'NX', 'PX', ARGV[6]) and 1 or 2
end

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

local found, kept = '', 0
local entry = redis.call('GET', KEYS[2])
if entry then
  found = 'stale'
  local header_end = string.find(entry, '\n', 1, true)
  local tags_end = header_end and string.find(entry, '\n', header_end + 1, true)
  local epoch, as_of, kind, kept_ms = string.match(entry, '^lockstep1 (%x+) (%d+) %d+ (%w+) ?%S* ?(%d*)')
  if tags_end and epoch == ARGV[2] then
    local tags = {}
    for tag in string.gmatch(string.sub(entry, header_end + 1, tags_end - 1), '%S+') do
      tags[#tags + 1] = tag
    end
    if newest(tags) <= tonumber(as_of) then
      local left = redis.call('PTTL', KEYS[2])
      -- By the settings of whoever stored it.
      local beyond = tonumber(kept_ms) or fail_safe
      if left > beyond then
        left = left - beyond
        -- That there is nothing is cheap to find out again, and mostly nobody asks again.
        local ends_soon = left < tonumber(ARGV[8]) and kind ~= 'absent'
        return 'HIT ' .. meta[2] .. ' ' .. (ends_soon and acquire() or 0) .. ' ' .. left .. '\n' .. entry
      end
      -- One that nobody has given an end has -1.
      found, kept = entry, math.max(left, 0)
    end
  end
end

local tags = {}
for i = 9, #ARGV do
  tags[#tags + 1] = ARGV[i]
end
newest(tags)
local lock = acquire()
-- Whoever waits for another asks again and again, and needs no more than that.
if lock == 2 and found ~= 'stale' then
  found, kept = '', 0
end
return 'MISS ' .. meta[2] .. ' ' .. lock .. ' ' .. kept .. '\n' .. found
