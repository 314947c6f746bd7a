-- In front of every script on a key.
--
-- KEYS[1] holds 'revision end\n' and the value; the end is a time in microseconds, 0 for never, and 1, which is long
-- over, for a key that was deleted. The server's own expiry only tidies up.
--
-- A revision is a time, or one more than the last: none comes again, not even after a failover that took some back.

local TOMBSTONE = 600000 -- milliseconds: longer than a clock is ever set back by

-- Return the last revision, 0 if none is remembered, and the value, nil if it is over.
local function kept(at)
  local text = redis.call('GET', KEYS[1])
  if not text then
    return 0, nil
  end
  local revision, ends, start = string.match(text, '^(%d+) (%d+)\n()')
  ends = tonumber(ends)
  if ends ~= 0 and ends <= at then
    return tonumber(revision), nil
  end
  return tonumber(revision), string.sub(text, start)
end

-- Whether the comparison with ARGV, '' for none, holds.
local function is_expected(expected, revision, value)
  if expected == '' then
    return true
  end
  return expected == (value and int(revision) or '0')
end

local function next_revision(last, at)
  return int(math.max(last + 1, at))
end
