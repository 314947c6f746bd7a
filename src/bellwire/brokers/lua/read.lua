-- Prove a position, and return what follows on it.
--
-- ARGV[7] its generation, ARGV[8] its number, ARGV[9] its tag, ARGV[10] the most entries, ARGV[11] the most bytes
--
-- 'page', gen, top number, top tag, 1 if more follow, records ...
-- why not, gen, top number, top tag, number and tag to restart from, and where it diverged: of what came since

local log = open()
keep_limits(log, now())

local function refused(reason)
  return {reason, log.gen, log.seq, log.tag, log.base_seq, log.base_tag}
end

local function diverged(last)
  local answer = refused('diverged')
  local before = redis.call('XREVRANGE', LOG, int(last) .. '-0', '-', 'COUNT', 1)[1]
  answer[7], answer[8] = log.base_seq, log.base_tag
  if before then
    answer[7], answer[8] = numbers(before[2][2])
  end
  return answer
end

local GEN, SEQ, TAG = ARGV[7], ARGV[8], ARGV[9]
local seq, reach = tonumber(SEQ), reach_of(log, GEN)
if not reach then
  return refused('generation')
end
if seq > reach then
  return diverged(reach)
end

local function is_proved()
  if (SEQ == log.seq and TAG == log.tag) or (SEQ == log.base_seq and TAG == log.base_tag) then
    return true
  end
  if seq <= tonumber(log.base_seq) or seq >= tonumber(log.seq) then
    return false
  end
  local there = redis.call('XRANGE', LOG, SEQ .. '-0', SEQ .. '-0')[1]
  if not there then
    return false
  end
  local _, tag = numbers(there[2][2])
  return tag == TAG
end

if not is_proved() then
  return seq < tonumber(log.base_seq) and refused('truncated') or diverged(seq)
end

local most, left = tonumber(ARGV[10]), tonumber(ARGV[11])
local page = {'page', log.gen, log.seq, log.tag, '0'}
for index, item in ipairs(redis.call('XRANGE', LOG, '(' .. SEQ .. '-0', '+', 'COUNT', int(most + 1))) do
  local record = item[2][2]
  local _, _, _, _, _, size = numbers(record)
  left = left - tonumber(size)
  if index > most or (left < 0 and index > 1) then
    page[5] = '1'
    break
  end
  page[#page + 1] = record
end
return page
