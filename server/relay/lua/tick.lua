-- Once a second from every node: move the present on, drop what is over age, and say how the log stands.
-- KEYS: facts, own ids, then facts and stream of each shard. ARGV: epoch, the newest entry the node knows of, the highest
-- cursor it has given out, which of the shards to look into for that entry (after a connection broke, another log may be
-- behind the new one; 0: none), most entries to drop from a shard, 1 if it matters which run of Redis this is (that is
-- noted if the look finds the log whole), else 0.
-- Gives {'standing', high, then last, floor, events and bytes of each shard} or {'turned', epoch}. Everything appended
-- later is above `high`.
local facts, own = KEYS[1], KEYS[2]
local known = redis.call('HMGET', facts, 'epoch', 'high', 'last', 'most_seconds')
local high = tonumber(known[2] or 0)
if turned(ARGV[1], ARGV[2], ARGV[3], known[1], known[3], high) then
  return {'turned', known[1] or ''}
end
high = math.max(high, tonumber(ARGV[3]))
local look = tonumber(ARGV[4])
if look > 0 then
  local gone = tonumber(redis.call('HGET', KEYS[1 + look * 2], 'floor') or 0)
  if tonumber(ARGV[2]) > gone and #redis.call('XRANGE', KEYS[2 + look * 2], ARGV[2], ARGV[2]) == 0 then
    return {'turned', known[1]}
  end
  if ARGV[6] == '1' then
    redis.call('HSET', facts, 'run', run_here())
  end
end
local now = redis.call('TIME')
local present = now[1] * 1000000 + now[2]
high = math.max(high, present)
local seconds = tonumber(known[4] or 0)
local text_high = string.format('%.0f', high)
local answer = {'standing', text_high}
local split = #KEYS > 4
local most_bytes = 2 ^ 24 / ((#KEYS - 2) / 2) -- to drop from a shard: a megabyte takes Redis 2 ms
for at = 3, #KEYS, 2 do
  local suffix = split and ':' .. (at - 3) / 2 or ''
  local stands = redis.call('HMGET', KEYS[at], 'last', 'floor', 'bytes')
  local floor, bytes = stands[2] or '0', stands[3] or '0'
  if seconds > 0 then
    local before = string.format('%.0f', present - seconds * 1000000 - 1)
    local left, gone, gone_bytes, wanted, oldest = tonumber(ARGV[5]), 0, 0, 0, nil
    repeat
      wanted = math.min(left - gone, next_few(wanted, gone_bytes, gone, most_bytes - gone_bytes))
      oldest = redis.call('XRANGE', KEYS[at + 1], '-', before, 'COUNT', wanted)
      for _, entry in ipairs(oldest) do
        floor = string.match(entry[1], '^%d+')
        bytes = bytes - forget(own, floor .. suffix, entry[2])
        gone, gone_bytes = gone + 1, gone_bytes + bytes_of(entry[2])
      end
      if #oldest > 0 then
        redis.call('XTRIM', KEYS[at + 1], 'MINID', string.format('%.0f', floor + 1))
      end
    until #oldest < wanted or gone == left or gone_bytes >= most_bytes
    if gone > 0 then
      bytes = string.format('%.0f', bytes)
      -- A Redis that is full refuses this until there is room again: then what was dropped shows all the same.
      redis.pcall('HSET', KEYS[at], 'floor', floor, 'bytes', bytes)
    end
  end
  floor = dropped(KEYS[at + 1], floor, stands[1])
  answer[#answer + 1] = stands[1] or '0'
  answer[#answer + 1] = floor
  answer[#answer + 1] = redis.call('XLEN', KEYS[at + 1])
  answer[#answer + 1] = bytes
end
-- Behind the trimming: a Redis that is full gets room by that, and refuses what needs some.
redis.call('HSET', facts, 'high', text_high)
return answer
