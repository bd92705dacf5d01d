-- Open a channel's log, or begin a new epoch of it.
-- KEYS: facts, stream. ARGV: an epoch for a log that has none; the epoch that is found to have been turned back, or "";
-- the highest position that the node has given out; most events, bytes and seconds (0: no bound).
-- Gives {epoch, high, last, floor}. Positions go on above everything that any cursor can hold.
local facts, stream = KEYS[1], KEYS[2]
local known = redis.call('HMGET', facts, 'epoch', 'high', 'last', 'floor')
local epoch, high = known[1], math.max(tonumber(known[2] or 0), tonumber(ARGV[3]))
local last, floor = known[3] or '0', known[4] or '0'
redis.call('HSET', facts, 'most_events', ARGV[4], 'most_bytes', ARGV[5], 'most_seconds', ARGV[6])
if not epoch or epoch == ARGV[2] then
  local now = redis.call('TIME')
  if not epoch then
    redis.call('DEL', stream)
    last, floor = '0', '0'
    redis.call('HSET', facts, 'bytes', 0)
  end
  epoch = ARGV[1]
  high = math.max(high, now[1] * 1000000 + now[2])
  redis.call('HSET', facts, 'epoch', epoch, 'high', string.format('%.0f', high), 'last', last, 'floor', floor)
end
return {epoch, string.format('%.0f', high), last, floor}
