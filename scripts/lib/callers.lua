-- What scripts/bench sends, for wrk: the same request in turn for each caller, made before it begins.
--
-- BENCH_TOKENS  file with an access token in each line
-- BENCH_PATHS   file with a path in each line; without it the path of the URL
-- BENCH_ETAG    for If-None-Match
-- BENCH_BODY    JSON to POST; without it GET
-- BENCH_OTHERS  so many requests with different queries, which mean nothing, before one comes again
local requests, turn = {}, 0

local function lines_of(name)
  local lines = {}
  for line in io.lines(os.getenv(name)) do lines[#lines + 1] = line end
  return lines
end

function init()
  local etag, body = os.getenv('BENCH_ETAG'), os.getenv('BENCH_BODY')
  local tokens = lines_of('BENCH_TOKENS')
  local paths = os.getenv('BENCH_PATHS') and lines_of('BENCH_PATHS') or { wrk.path }
  local others = tonumber(os.getenv('BENCH_OTHERS') or '0')
  local method = body and 'POST' or 'GET'
  for i = 1, math.max(#tokens, #paths, others) do
    local headers = { ['Authorization'] = 'Bearer ' .. tokens[(i - 1) % #tokens + 1] }
    if etag then headers['If-None-Match'] = etag end
    if body then headers['Content-Type'] = 'application/json' end
    local path = paths[(i - 1) % #paths + 1]
    if others > 0 then path = path .. '?n=' .. i end
    requests[i] = wrk.format(method, path, headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end
