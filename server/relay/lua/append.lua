-- Append events to a channel's streams, all or none.
-- KEYS: facts, own ids, then facts and stream of each shard that gets an event (of a log that is not split, the facts
--       are the channel's), and the receipt of the idempotency key if there is one.
-- ARGV: epoch, the newest entry the node knows of, the highest cursor it has given out, window in ms, digest, number of
--       events, number of these shards, for each of them what stands behind a position to name a place ("" in a log that
--       is not split, else ":" and its number), then for each event: payload, bytes, the publisher's own id or "", and
--       which of these shards get it.
-- Gives {'appended', first position}, {'seen', receipt}, or {'turned', epoch}: the log is not the one that the node knows.
local facts, own, count, shards = KEYS[1], KEYS[2], tonumber(ARGV[6]), tonumber(ARGV[7])
local receipt = KEYS[3 + shards * 2]
local known = redis.call('HMGET', facts, 'epoch', 'high', 'last', 'most_events', 'most_bytes', 'floor', 'bytes')
local high = tonumber(known[2] or 0)
if turned(ARGV[1], ARGV[2], ARGV[3], known[1], known[3], high) then
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
local touched = {}
for number = 1, shards do
  local shard = {facts = KEYS[1 + number * 2], stream = KEYS[2 + number * 2], suffix = ARGV[7 + number], brought = 0}
  if shard.facts == facts then
    shard.last, shard.floor, shard.bytes = known[3] or '0', known[6] or '0', tonumber(known[7] or 0)
  else
    local stands = redis.call('HMGET', shard.facts, 'last', 'floor', 'bytes')
    shard.last, shard.floor, shard.bytes = stands[1] or '0', stands[2] or '0', tonumber(stands[3] or 0)
    -- An entry of somebody else's, higher than ours will be, would stop us half-way.
    local newest = redis.call('XREVRANGE', shard.stream, '+', '-', 'COUNT', 1)[1]
    if newest and tonumber(string.match(newest[1], '^%d+')) >= first then
      return redis.error_reply('ERR an entry of the stream is ahead of the log')
    end
  end
  touched[number] = shard
end
local brought, position = {}, nil
local large -- the newest that is: up to it the nodes read carefully
local at = 8 + shards
for number = 0, count - 1 do
  local payload, size, id = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  position = string.format('%.0f', first + number)
  if #payload > SMALL_BYTES then
    large = position
  end
  for digits in string.gmatch(ARGV[at + 3], '%d+') do
    local shard = touched[tonumber(digits)]
    -- Each entry names the one before it: who follows the stream sees that one was dropped before it could be read.
    if id == '' then
      redis.call('XADD', shard.stream, position .. '-0', 'e', payload, 's', size, 'p', shard.last)
    else
      redis.call('XADD', shard.stream, position .. '-0', 'e', payload, 's', size, 'p', shard.last, 'i', id)
      redis.call('ZADD', own, 0, own_place(id, position .. shard.suffix))
    end
    shard.last, shard.bytes, shard.brought = position, shard.bytes + size, shard.brought + 1
  end
  brought[number + 1] = id
  at = at + 4
end
-- Retention by count and bytes, shard by shard, a few at a time (see next_few). Age is looked at by tick.lua, once a
-- second.
local most, most_bytes = tonumber(known[4] or 0), tonumber(known[5] or 0)
for _, shard in ipairs(touched) do
  local length = redis.call('XLEN', shard.stream)
  local function over()
    return (most > 0 and length > most) or (most_bytes > 0 and shard.bytes > most_bytes and length > 1)
  end
  while over() do
    local oldest = redis.call('XRANGE', shard.stream, '-', '+', 'COUNT', math.min(shard.brought + 1, 16))
    if #oldest == 0 then
      shard.bytes = 0
      break
    end
    for _, entry in ipairs(oldest) do
      if not over() then
        break
      end
      shard.floor = string.match(entry[1], '^%d+')
      length = length - 1
      shard.bytes = shard.bytes - forget(own, shard.floor .. shard.suffix, entry[2])
    end
    redis.call('XTRIM', shard.stream, 'MINID', string.format('%.0f', shard.floor + 1))
  end
  local bytes = string.format('%.0f', shard.bytes)
  if shard.facts == facts then
    redis.call('HSET', facts, 'high', position, 'last', position, 'floor', shard.floor, 'bytes', bytes)
  else
    redis.call('HSET', shard.facts, 'last', shard.last, 'floor', shard.floor, 'bytes', bytes)
    redis.call('HSET', facts, 'high', position, 'last', position)
  end
end
if large then
  redis.call('HSET', facts, 'large', large)
end
if receipt then
  local first_text = string.format('%.0f', first)
  redis.call('SET', receipt, ARGV[5] .. ' ' .. first_text .. ' ' .. ARGV[6] .. '\n' .. table.concat(brought, '\n'),
    'PX', ARGV[4])
end
return {'appended', string.format('%.0f', first)}
