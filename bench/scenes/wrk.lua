-- What wrk sends. Arguments, behind `--`: "get" or "put"; how paths look ("plain": /name, and PUT /; "sharded": /xx/name); a file of
-- names, or the size of bodies; a number that no other run has. It prints its result as one line of JSON, after "RESULT ".

local requests, path_of, tail, stamp, count = {}, nil, nil, nil, 0

local function get(file)
  for name in io.lines(file) do
    requests[#requests + 1] = wrk.format("GET", path_of(name))
  end
  request = function() return requests[math.random(#requests)] end
end

-- Bodies differ in their first 16 bytes. The rest is the same page of random bytes, again and again, put together once: that costs the
-- least.
local function put(size, sharded)
  local noise = {}
  for index = 1, 4096 do noise[index] = string.char(math.random(0, 255)) end
  tail = table.concat(noise):rep(size / 4096 + 1):sub(1, size - 16)
  local fields = string.format("Host: %s\r\nContent-Length: %d\r\n\r\n", wrk.headers["Host"], size)
  request = function()
    count = count + 1
    local unique = string.format("%08x%08x", stamp, count)
    local path = sharded and string.format("/%02x/%s%048x", count % 256, unique, 0) or "/"
    return "PUT " .. path .. " HTTP/1.1\r\n" .. fields .. unique .. tail
  end
end

function init(arguments)
  local operation, form, subject = arguments[1], arguments[2], arguments[3]
  stamp = tonumber(arguments[4])
  math.randomseed(stamp)
  local sharded = form == "sharded"
  path_of = function(name) return sharded and "/" .. name:sub(1, 2) .. "/" .. name or "/" .. name end
  if operation == "get" then get(subject) else put(tonumber(subject), sharded) end
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format('RESULT {"requests": %d, "microseconds": %d, "bytes": %d, '
    .. '"latency_us": {"p50": %d, "p99": %d, "p99.9": %d, "max": %d}, '
    .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
