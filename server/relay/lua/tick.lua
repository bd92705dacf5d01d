-- Once a second from every node: move the present on, drop what is over age, and say how the log stands.
-- KEYS: facts, stream, own ids. ARGV: epoch, the newest entry the node knows of, the highest cursor it has given out, 1
-- to look whether that entry is there (after a connection broke, another log may be behind the new one), most to drop.
-- Gives {'standing', high, last, floor, events, bytes} or {'turned', epoch}. Everything appended later is above `high`.
local facts, stream, own = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HMGET', facts, 'epoch', 'high', 'last', 'floor', 'bytes', 'most_seconds')
local high, floor, bytes = tonumber(known[2] or 0), tonumber(known[4] or 0), tonumber(known[5] or 0)
if turned(ARGV[1], ARGV[2], ARGV[3], known[1], known[3], high) then
  return {'turned', known[1] or ''}
end
high = math.max(high, tonumber(ARGV[3]))
if ARGV[4] == '1' and tonumber(ARGV[2]) > floor and #redis.call('XRANGE', stream, ARGV[2], ARGV[2]) == 0 then
  return {'turned', known[1]}
end
local now = redis.call('TIME')
local present = now[1] * 1000000 + now[2]
high = math.max(high, present)
local seconds = tonumber(known[6] or 0)
if seconds > 0 then
  local before = present - seconds * 1000000 - 1
  local oldest = redis.call('XRANGE', stream, '-', string.format('%.0f', before), 'COUNT', ARGV[5])
  for _, entry in ipairs(oldest) do
    floor = tonumber(string.match(entry[1], '^%d+'))
    bytes = bytes - forget(own, entry[2])
  end
  if #oldest > 0 then
    redis.call('XTRIM', stream, 'MINID', string.format('%.0f', floor + 1))
  end
end
local text_high, text_floor = string.format('%.0f', high), string.format('%.0f', floor)
redis.call('HSET', facts, 'high', text_high, 'floor', text_floor, 'bytes', bytes)
return {'standing', text_high, known[3] or '0', text_floor, redis.call('XLEN', stream), bytes}
