-- Append an entry and publish it.
--
-- KEYS[3] what is remembered of the message's id, KEYS[4] the sharded channel
-- ARGV[7] the deadline in microseconds or '', ARGV[8] the tag, ARGV[9] the entry's size, ARGV[10] the envelope,
-- ARGV[11] for how many microseconds an id is remembered
--
-- 'late', time                                    nothing was done
-- 'known', gen, number, tag, prev number, prev tag    it was appended before, there
-- 'new', gen, number, prev number, prev tag

local at = now()
if ARGV[7] ~= '' and at > tonumber(ARGV[7]) then
  return {'late', int(at)}
end

local log = open()
local window = tonumber(ARGV[11])
local known = redis.call('GET', KEYS[3])
if known then
  local time, gen, seq, tag, prev_seq, prev_tag = string.match(known, '^(%d+) (%S+) (%d+) (%d+) (%d+) (%d+)$')
  local reach = reach_of(log, gen) -- none if the stream was forgotten since, and its message with it
  if tonumber(time) >= at - window and reach and tonumber(seq) <= reach then
    return {'known', gen, seq, tag, prev_seq, prev_tag}
  end
end

local prev_seq, prev_tag = log.seq, log.tag
local seq, tag, size = int(tonumber(prev_seq) + 1), ARGV[8], ARGV[9]
local chain = seq .. ' ' .. tag .. ' ' .. prev_seq .. ' ' .. prev_tag
local record = chain .. ' ' .. int(at) .. ' ' .. size .. '\n' .. ARGV[10]

redis.call('XADD', LOG, seq .. '-0', 'e', record)
redis.call('SET', KEYS[3], int(at) .. ' ' .. log.gen .. ' ' .. chain, 'PX', int(math.floor(window / 1000) + 1000))
log.newest = tonumber(size)
log.size = log.size + log.newest
if log.size == log.newest then
  log.oldest = at
end
redis.call('HSET', META, 'seq', seq, 'tag', tag, 'size', int(log.size), 'newest', size, 'oldest', int(log.oldest))
keep_limits(log, at)
log.seq = seq
keep(log)
redis.call('SPUBLISH', KEYS[4], 'E' .. log.gen .. '\n' .. record)
return {'new', log.gen, seq, prev_seq, prev_tag}
