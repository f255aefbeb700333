-- Entries, each if it is valid; else a sequence under which to load it, and perhaps the right to be the one who does.
-- An entry is valid if no tag of it was invalidated after the sequence as of which it was loaded. A tag without
-- a version is given the present sequence: no lower than any version it may have had.
-- KEYS: meta, and for each that is wanted its entry and its lock.
-- ARGV: marker, epoch, tag key prefix, life of a lock in ms, and for each that is wanted a text of words: life of a version
-- in ms, ms that an entry is kept beyond its time, ms to live below which an entry is to be renewed, lock owner or '-',
-- tags...
-- Returns one text, which takes less to read than a list: a line of lengths, and behind it so much text for each:
-- 'OUTCOME SEQUENCE LOCK MS\nENTRY'.
-- HIT: an entry and its time to live. MISS: perhaps an entry whose time was up that many ms before it is thrown away,
-- while 'stale' in its place says that there was one that is not valid. EPOCH: this is another life of the data.
-- Lock: 0 not asked for, 1 acquired, 2 held by another. Whoever acquires it on a hit is to renew the entry.
-- What goes wrong with one is said in its place, and is none of the others': 'ERROR 0 0 0\nMESSAGE'. When the text has
-- become long, what is left is to be asked for again, so that Redis is not held up: 'LATER 0 0 0\n'.
local marker, epoch, prefix, lock_life = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local meta = redis.call('HMGET', KEYS[1], 'marker', 'sequence')
local is_same_life = meta[1] == marker
local present = tonumber(meta[2])

local function acquire(lock, owner)
  if owner == '-' then
    return 0
  end
  return redis.call('SET', lock, owner, 'NX', 'PX', lock_life) and 1 or 2
end

-- The highest version of the tags in a text, most of which are expected to have one.
local function newest(text, version_life)
  local names = {}
  for tag in string.gmatch(text, '%S+') do
    names[#names + 1] = prefix .. tag
  end
  local highest = 0
  for first = 1, #names, 1000 do
    local last = math.min(first + 999, #names)
    for i, version in ipairs(redis.call('MGET', unpack(names, first, last))) do
      if not version then
        redis.call('SET', names[first + i - 1], meta[2], 'PX', version_life)
        version = present
      end
      highest = math.max(highest, tonumber(version))
    end
  end
  return highest
end

local function read(entry_key, lock, wanted)
  local version_life, fail_safe, refresh_below, owner, tags = string.match(wanted, '^(%d+) (%d+) (%d+) (%S+)(.*)$')
  local found, kept = '', 0
  local entry = redis.call('GET', entry_key)
  if entry then
    found = 'stale'
    local header_end = string.find(entry, '\n', 1, true)
    local tags_end = header_end and string.find(entry, '\n', header_end + 1, true)
    local of_epoch, as_of, kind, kept_ms = string.match(entry, '^lockstep1 (%x+) (%d+) %d+ (%w+) ?%S* ?(%d*)')
    if tags_end and of_epoch == epoch then
      if newest(string.sub(entry, header_end + 1, tags_end - 1), version_life) <= tonumber(as_of) then
        local left = redis.call('PTTL', entry_key)
        -- By the settings of whoever stored it.
        local beyond = tonumber(kept_ms) or tonumber(fail_safe)
        if left > beyond then
          left = left - beyond
          -- That there is nothing is cheap to find out again, and mostly nobody asks again.
          local ends_soon = left < tonumber(refresh_below) and kind ~= 'absent'
          return 'HIT ' .. meta[2] .. ' ' .. (ends_soon and acquire(lock, owner) or 0) .. ' ' .. left .. '\n' .. entry
        end
        -- One that nobody has given an end has -1.
        found, kept = entry, math.max(left, 0)
      end
    end
  end
  newest(tags, version_life)
  local right = acquire(lock, owner)
  -- Whoever waits for another asks again and again, and needs no more than that.
  if right == 2 and found ~= 'stale' then
    found, kept = '', 0
  end
  return 'MISS ' .. meta[2] .. ' ' .. right .. ' ' .. kept .. '\n' .. found
end

local lengths, answers, bytes = {}, {}, 0
for i = 1, #ARGV - 4 do
  local answer = 'EPOCH 0 0 0\n'
  if bytes > 256 * 1024 then
    answer = 'LATER 0 0 0\n'
  elseif is_same_life then
    local done, outcome = pcall(read, KEYS[2 * i], KEYS[2 * i + 1], ARGV[4 + i])
    if done then
      answer = outcome
    else
      answer = 'ERROR 0 0 0\n' .. (type(outcome) == 'table' and outcome.err or tostring(outcome))
    end
  end
  lengths[i], answers[i], bytes = #answer, answer, bytes + #answer
end
answers[0] = table.concat(lengths, ' ') .. '\n'
return table.concat(answers, '', 0)
