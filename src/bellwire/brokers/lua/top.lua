-- Return the generation, number and tag of the newest entry; with it its record if ARGV[7] is '1' and there is one.

local log = open()
if log.size == MARKER * tonumber(log.seq) and log.size > 0 then
  keep(log)
end
local answer = {log.gen, log.seq, log.tag}
if ARGV[7] == '1' then
  local newest = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  answer[4] = newest and newest[2][2]
end
return answer
