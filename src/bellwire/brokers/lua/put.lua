-- Keep the value ARGV[1] if the revision is ARGV[2], for ARGV[3] microseconds ('' for ever); return the new revision.

local at = now()
local last, value = kept(at)
if not is_expected(ARGV[2], last, value) then
  return false
end
local revision = next_revision(last, at)
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], revision .. ' 0\n' .. ARGV[1])
else
  local ttl = tonumber(ARGV[3])
  redis.call('SET', KEYS[1], revision .. ' ' .. int(at + ttl) .. '\n' .. ARGV[1],
             'PX', int(math.ceil(ttl / 1000) + TOMBSTONE))
end
return revision
