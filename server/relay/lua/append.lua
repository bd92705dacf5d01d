-- Append events to a channel's stream, all or none.
-- KEYS: facts, stream, own ids, and the receipt of the idempotency key if there is one.
-- ARGV: epoch, the newest entry the node knows of, the highest cursor it has given out, window in ms, digest, number of
--       events, then for each: payload, bytes, the publisher's own id or "".
-- Gives {'appended', first position}, {'seen', receipt}, or {'turned', epoch}: the log is not the one that the node knows.
local facts, stream, own, receipt = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local known = redis.call('HMGET', facts, 'epoch', 'high', 'floor', 'bytes', 'last', 'most_events', 'most_bytes')
local high, floor, bytes = tonumber(known[2] or 0), tonumber(known[3] or 0), tonumber(known[4] or 0)
if turned(ARGV[1], ARGV[2], ARGV[3], known[1], known[5], high) then
  return {'turned', known[1] or ''}
end
high = math.max(high, tonumber(ARGV[3]))
if receipt then
  local seen = redis.call('GET', receipt)
  if seen then
    return {'seen', seen}
  end
end
local now = redis.call('TIME')
local first = math.max(now[1] * 1000000 + now[2], high + 1)
local count, brought, before = tonumber(ARGV[6]), {}, known[5] or '0'
for number = 0, count - 1 do
  local at = 7 + number * 3
  local payload, size, id = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local position = string.format('%.0f', first + number)
  -- Each entry names the one before it: who follows the stream sees that one was dropped before it could be read.
  if id == '' then
    redis.call('XADD', stream, position .. '-0', 'e', payload, 's', size, 'p', before)
  else
    redis.call('XADD', stream, position .. '-0', 'e', payload, 's', size, 'p', before, 'i', id)
    local places = redis.call('HGET', own, id)
    redis.call('HSET', own, id, places and places .. ' ' .. position or position)
  end
  brought[number + 1], before = id, position
  bytes = bytes + size
end
local last = string.format('%.0f', first + count - 1)
-- Retention by count and bytes. Age is looked at by tick.lua, once a second.
local length, most, most_bytes = redis.call('XLEN', stream), tonumber(known[6] or 0), tonumber(known[7] or 0)
local function over()
  return (most > 0 and length > most) or (most_bytes > 0 and bytes > most_bytes and length > 1)
end
while over() do
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(count + 1, 100))
  if #oldest == 0 then
    bytes = 0
    break
  end
  for _, entry in ipairs(oldest) do
    if not over() then
      break
    end
    floor = tonumber(string.match(entry[1], '^%d+'))
    length = length - 1
    bytes = bytes - forget(own, entry[2])
  end
  redis.call('XTRIM', stream, 'MINID', string.format('%.0f', floor + 1))
end
redis.call('HSET', facts, 'high', last, 'last', last, 'floor', string.format('%.0f', floor), 'bytes', bytes)
if receipt then
  local first_text = string.format('%.0f', first)
  redis.call('SET', receipt, ARGV[5] .. ' ' .. first_text .. ' ' .. ARGV[6] .. '\n' .. table.concat(brought, '\n'),
    'PX', ARGV[4])
end
return {'appended', string.format('%.0f', first)}
