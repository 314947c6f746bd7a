-- In front of every script: numbers and the time. Lua's numbers are doubles, and its own way of writing them loses
-- digits beyond 14: what is to be read again goes through int().

local function int(number)
  return string.format('%.0f', number)
end

-- The server's time in microseconds since 1970.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- The id of the history that this server replicates, '' if the user may not ask. A promotion makes another one.
local function replication_id()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end
