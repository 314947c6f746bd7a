-- In front of every script on a stream.
--
-- KEYS[1] the log: a Redis stream, the entry with number n under the id n-0, its record in the field 'e'
-- KEYS[2] meta: what outlives the entries
-- ARGV[1] the replication id that the node knows, '' if it may not ask
-- ARGV[2] a name that no generation ever had
-- ARGV[3] the limits: entries, ARGV[4] bytes, both behind the newest one, ARGV[5] age in microseconds
-- ARGV[6] how long a stream is kept that nobody touches, in milliseconds, and how long one with nothing but markers
--
-- A record is 'number tag prev-number prev-tag time size\n' and the envelope. Numbers stay text where they are only
-- passed on or compared for equality.

local LOG, META = KEYS[1], KEYS[2]
local MOST, MOST_BYTES, AGE = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local KEEP, STANDING = string.match(ARGV[6], '^(%d+) (%d+)$')
local MAX_FORMER = 16
local MARKER = 64 -- the size of a marker, and of nothing else: a message has an id

local function numbers(record)
  return string.match(record, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)\n')
end

-- A generation is its era, a dot and a name. The era is the time in milliseconds, and greater than the one before it.
local function generation(last)
  return int(math.max(last + 1, math.floor(now() / 1000))) .. '.' .. ARGV[2]
end

-- Go on under another generation: what lies up to the top is all that the former ones have in common with this log.
local function renew(log, id)
  local last, former = tonumber(log.seq), {}
  for gen, reach in string.gmatch(log.former, '([^ ;]+) (%d+);') do
    former[#former + 1] = gen .. ' ' .. int(math.min(tonumber(reach), last)) .. ';'
  end
  former[#former + 1] = log.gen .. ' ' .. log.seq .. ';'
  log.former = table.concat(former, '', math.max(1, #former - MAX_FORMER + 1))
  log.gen, log.rid = generation(tonumber(string.match(log.gen, '^(%d+)%.') or '0')), id
  redis.call('HSET', META, 'gen', log.gen, 'rid', log.rid, 'former', log.former)
end

local function create()
  redis.call('UNLINK', LOG)
  local log = {gen = generation(0), rid = ARGV[1], seq = '0', tag = '0', base_seq = '0', base_tag = '0', former = '',
               size = 0, newest = 0, oldest = 0}
  redis.call('HSET', META, 'gen', log.gen, 'rid', log.rid, 'seq', '0', 'tag', '0', 'base_seq', '0', 'base_tag', '0',
             'former', '', 'size', '0', 'newest', '0', 'oldest', '0')
  -- Nobody has seen anything of it: it need not last longer than a history.
  redis.call('PEXPIRE', META, int(math.max(60000, math.floor(AGE / 1000))))
  return log
end

-- Return what meta holds, after the check of the generation. Asking for the replication id costs more than all the
-- rest: it is asked for only when the node's is another one than meta's. It may be the node that is late.
local function open()
  local m = redis.call('HMGET', META, 'gen', 'rid', 'seq', 'tag', 'base_seq', 'base_tag', 'former', 'size', 'newest',
                       'oldest')
  if not m[1] then
    return create()
  end
  local log = {gen = m[1], rid = m[2], seq = m[3], tag = m[4], base_seq = m[5], base_tag = m[6], former = m[7],
               size = tonumber(m[8]), newest = tonumber(m[9]), oldest = tonumber(m[10])}
  if log.rid ~= ARGV[1] and ARGV[1] ~= '' then
    local id = replication_id()
    if id ~= '' and id ~= log.rid then
      renew(log, id)
    end
  end
  return log
end

-- How far a reader of this generation can be good, nil if the generation is not known.
local function reach_of(log, gen)
  if gen == log.gen then
    return math.huge
  end
  for former, reach in string.gmatch(log.former, '([^ ;]+) (%d+);') do
    if former == gen then
      return tonumber(reach)
    end
  end
  return nil
end

-- Take out what is beyond the limits: the oldest entries, never the newest. A full log loses one for each that comes:
-- that one and the next are looked at first.
local function trim(log, behind, at)
  local start, cut, batch = '-', false, 2
  while true do
    local some = redis.call('XRANGE', LOG, start, '+', 'COUNT', batch)
    batch = 16
    if #some == 0 then
      return
    end
    for _, item in ipairs(some) do
      local seq, tag, _, _, time, size = numbers(item[2][2])
      local beyond = behind > MOST or log.size - log.newest > MOST_BYTES or tonumber(time) < at - AGE
      if behind == 0 or not beyond then
        log.oldest = tonumber(time)
        if cut then
          redis.call('XTRIM', LOG, 'MINID', '=', item[1])
          redis.call('HSET', META, 'base_seq', log.base_seq, 'base_tag', log.base_tag, 'size', int(log.size), 'oldest',
                     int(log.oldest))
        end
        return
      end
      log.base_seq, log.base_tag, cut = seq, tag, true
      log.size, behind = log.size - tonumber(size), behind - 1
      start = '(' .. item[1]
    end
  end
end

-- Somebody looks after the stream: keep it. One with nothing but markers is kept for as long as somebody may stand in it,
-- who looks where it ends every 30 seconds, or comes back within a session's lifetime.
local function keep(log)
  local time = log.size == MARKER * tonumber(log.seq) and STANDING or KEEP
  redis.call('PEXPIRE', META, time)
  redis.call('PEXPIRE', LOG, time)
end

local function keep_limits(log, at)
  local behind = redis.call('XLEN', LOG) - 1
  if behind > 0 and (behind > MOST or log.size - log.newest > MOST_BYTES or log.oldest < at - AGE) then
    trim(log, behind, at)
  end
end
