-- Requests for wrk, ready made: the file named by the first argument has them one after another, each
-- behind a line with its length in bytes. A thread begins at its own place in them.
local MARK = 'RESULT '
local threads = 0
function setup(thread)
  thread:set('number', threads)
  threads = threads + 1
end

local requests, at = {}, 0
function init(args)
  local file = assert(io.open(args[1], 'rb'))
  while true do
    local length = file:read('*n')
    if not length then break end
    file:read(1)
    requests[#requests + 1] = file:read(length)
  end
  file:close()
  at = math.floor(#requests / 7) * number
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors, parts = summary.errors, {}
  for _, percent in ipairs({1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9}) do
    parts[#parts + 1] = string.format('"%g":%d', percent, latency:percentile(percent))
  end
  io.write(MARK, string.format(
    '{"count":%d,"duration_us":%d,"failed":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d},"percentiles_us":{%s}}\n',
    summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    table.concat(parts, ',')))
end
