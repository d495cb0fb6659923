-- Requests for wrk. Arguments: mode, file, size, seed.
--
--   put-ours   PUT /                     the file holds random bytes, of which the bodies are made
--   put-nginx  PUT /xx/counter-seed      the same
--   get        GET of a random line      the file holds paths
--
-- Prints one line of JSON at the end.

local next_request

-- A body is random bytes and a unique end. The end, not the start: LuaJIT hashes a string by a few of its bytes, among them the
-- last four. Were those always the same, all requests would meet in one chain of its table of strings.
local function put(path_of, host, file, size, seed)
  local random = assert(io.open(file, "rb")):read("*a"):sub(1, size - 16)
  local after_path = string.format(" HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", host, size, random)
  local counter = 0
  return function()
    counter = counter + 1
    return "PUT " .. path_of(counter) .. after_path .. string.format("%08x%08x", seed, counter)
  end
end

local function get(host, file, seed)
  local requests = {}
  for path in io.lines(file) do
    requests[#requests + 1] = "GET " .. path .. " HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n"
  end
  math.randomseed(seed)
  return function() return requests[math.random(#requests)] end
end

function init(arguments)
  local mode, file, size, seed = arguments[1], arguments[2], tonumber(arguments[3]), tonumber(arguments[4])
  local host = wrk.headers["Host"]
  if mode == "put-ours" then
    next_request = put(function() return "/" end, host, file, size, seed)
  elseif mode == "put-nginx" then
    next_request = put(function(counter) return string.format("/%02x/%d-%08x", counter % 256, counter, seed) end,
      host, file, size, seed)
  else
    next_request = get(host, file, seed)
  end
end

function request() return next_request() end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests": %d, "duration_us": %d, "bytes": %d, ', summary.requests, summary.duration, summary.bytes),
    string.format('"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, ',
      errors.connect, errors.read, errors.write, errors.status, errors.timeout),
    string.format('"latency_us": {"p50": %d, "p90": %d, "p99": %d, "p99.9": %d, "max": %d}}\n', latency:percentile(50),
      latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max))
end
