-- Exact sliding-window limiter over one or more logs: atomic, all or nothing, one round trip.
--
-- A log holds the stamps of the requests that were admitted, oldest first, and serves every policy
-- that counts the same requests: the user's log serves "burst" and "sustained", a second log serves
-- "message". A request is admitted only if every policy of every log given has room, and then it is
-- charged to all of them; a refused request changes nothing.
--
-- The window of a policy (N requests per W ms) is half open: a stamp counts while stamp > now - W.
-- retry_ms is the time until the oldest stamp of a policy that is used up leaves its window.
--
-- KEYS   one key per log, all with the same hash tag, e.g. rl:P:{u:42} and rl:P:{u:42}:msg,
--        where P names the policy set: the layout below depends on it.
-- ARGV   want      tokens asked for: 1 for a plain request, 0 to look without charging
--        lease_ms  0, or for how long the caller may hold the tokens before it uses them
--        now_ms    '' in production (Redis TIME is the only clock); a number in tests
--        nlogs     number of logs
--        then for each log: cap (its largest N), np (number of policies), N1, W1_ms, ... Nnp, Wnp_ms
-- reply  one text of numbers with spaces between them, which takes less to read than a list:
--        granted   0..want; less than want if there was room for only some
--        retry_ms  if granted < want: time until there is room again; else 0
--        now_ms    the time used
--        then for each log:    stamp   the stamp written (refund.lua needs it), 0 if nothing was
--             for each policy: remaining, t_ms (time until its oldest stamp leaves; 0: none in it)
--
-- Value of a log: a string of little-endian doubles.
--     count | last | tail_1 .. tail_np | ring of cap stamps
-- count  stamps ever written, less those refunded; stamp number j is in slot j % cap
-- last   a lower bound for the next stamp, so that the ring stays in order
-- tail_p number of the first stamp that was inside window p when the log was last written;
--        always >= count - cap, so nothing that is still needed has been overwritten

local want, lease, nlogs = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local now
if ARGV[3] == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
else
  now = tonumber(ARGV[3])
end

-- 1. Look: find each window's first stamp, and how many tokens fit everywhere.
local a, grant, logs = 5, want, {}
for i = 1, nlogs do
  local key, cap, np = KEYS[i], tonumber(ARGV[a]), tonumber(ARGV[a + 1])
  a = a + 2
  local head = 16 + 8 * np
  local h = redis.call('GETRANGE', key, 0, head - 1)
  local count, last = 0, 0
  if #h == head then count, last = struct.unpack('<dd', h) end

  local function stamp(j)
    local o = head + (j % cap) * 8
    return (struct.unpack('<d', redis.call('GETRANGE', key, o, o + 7)))
  end

  -- Stamps never decrease, so a clock that steps back can only make the limiter stricter, for as
  -- long as the step. It is followed back for one minute (more than any lease), so that the waits
  -- and times to live computed here stay below a window and a minute.
  local lnow = math.max(now, last - 60000)

  local log = {key = key, cap = cap, np = np, head = head, count = count, last = last, now = lnow,
               N = {}, W = {}, tail = {}, rem = {}, t = {}, maxW = 0, written = 0}
  for p = 1, np do
    local N, W = tonumber(ARGV[a]), tonumber(ARGV[a + 1])
    a = a + 2
    local tail = 0
    if count > 0 then tail = struct.unpack('<d', h, 9 + 8 * p) end
    local edge = lnow - W
    if last <= edge then
      tail = count                                  -- everything has left the window
    elseif tail < count and stamp(tail) <= edge then
      -- gallop forward from the saved tail, then bisect: one or two probes on average
      local lo, step = tail, 1
      while lo + step < count and stamp(lo + step) <= edge do
        lo = lo + step
        step = step * 2
      end
      local hi = math.min(lo + step, count)
      while hi - lo > 1 do
        local mid = math.floor((lo + hi) / 2)
        if stamp(mid) <= edge then lo = mid else hi = mid end
      end
      tail = hi
    end
    log.N[p], log.W[p], log.tail[p] = N, W, tail
    log.rem[p] = N - (count - tail)
    log.t[p] = (tail < count) and (stamp(tail) + W - lnow) or 0
    if W > log.maxW then log.maxW = W end
    if log.rem[p] < grant then grant = log.rem[p] end
  end
  logs[i] = log
end
if grant < 0 then grant = 0 end

-- 2. Charge every log, or none.
if grant > 0 then
  for i = 1, nlogs do
    local log = logs[i]
    -- A leased token is stamped with the end of its lease: it may be used at any time until then,
    -- and the stamp must never be older than the use.
    local s = log.now + lease
    if log.last > s then s = log.last end
    local packed = struct.pack('<d', s)
    -- Side by side, in two pieces where the ring begins anew.
    local slot = log.count % log.cap
    local first = math.min(grant, log.cap - slot)
    redis.call('SETRANGE', log.key, log.head + slot * 8, string.rep(packed, first))
    if grant > first then
      redis.call('SETRANGE', log.key, log.head, string.rep(packed, grant - first))
    end
    local h = struct.pack('<dd', log.count + grant, s)
    for p = 1, log.np do
      h = h .. struct.pack('<d', log.tail[p])
      log.rem[p] = log.rem[p] - grant
      if log.t[p] == 0 then log.t[p] = s + log.W[p] - log.now end
    end
    redis.call('SETRANGE', log.key, 0, h)
    redis.call('PEXPIRE', log.key, math.ceil(s + log.maxW - log.now))
    log.written = s
  end
end

-- 3. Report. The wait is the longest among the policies that are used up.
local retry, out = 0, {grant, 0, now}
for i = 1, nlogs do
  local log = logs[i]
  out[#out + 1] = log.written
  for p = 1, log.np do
    out[#out + 1] = log.rem[p]
    out[#out + 1] = math.ceil(log.t[p])
    if grant < want and log.rem[p] <= 0 and log.t[p] > retry then retry = log.t[p] end
  end
end
out[2] = math.ceil(retry)
return table.concat(out, ' ')
