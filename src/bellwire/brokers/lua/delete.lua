-- Remove the key if there is one, and its revision is ARGV[1] or that is ''; return 1 if so. Its revision is remembered.

local at = now()
local last, value = kept(at)
if not value or not is_expected(ARGV[1], last, value) then
  return 0
end
redis.call('SET', KEYS[1], next_revision(last, at) .. ' 1\n', 'PX', TOMBSTONE)
return 1
