-- Open a channel's log, or begin a new epoch of it.
-- KEYS: facts, own ids, then facts and stream of each shard (of the only one, the facts are the channel's), and where
-- releases before this one kept own ids.
-- ARGV: an epoch for a log that has none; the epoch that is found to have been turned back, or ""; the highest position
-- that the node has given out; most events, bytes and seconds (0: no bound) of a shard; 1 if it matters which
-- run of Redis this is, else 0.
-- Gives {'opened', epoch, where to begin, last and floor of each shard ...}, {'split', number}: into so many shards, not ours, or
-- {'unproven', epoch}: Redis was started anew, and no node that lived through that has found the log whole.
-- Positions go on above everything that any cursor can hold.
local facts, own = KEYS[1], KEYS[2]
local known = redis.call('HMGET', facts, 'epoch', 'high', 'shards', 'run', 'large', 'last')
local epoch, high = known[1], math.max(tonumber(known[2] or 0), tonumber(ARGV[3]))
local shards = (#KEYS - 3) / 2
if epoch and tonumber(known[3] or 1) ~= shards then
  return {'split', known[3] or '1'}
end
local run = ARGV[7] == '1' and run_here()
if run and ARGV[2] == '' and epoch and known[4] and known[4] ~= run then
  return {'unproven', epoch}
end
redis.call('HSET', facts, 'most_events', ARGV[4], 'most_bytes', ARGV[5], 'most_seconds', ARGV[6], 'shards', shards)
if not epoch then
  redis.call('DEL', own)
  for shard = 0, shards - 1 do
    redis.call('DEL', KEYS[4 + shard * 2])
    redis.call('HSET', KEYS[3 + shard * 2], 'bytes', 0, 'last', '0', 'floor', '0')
  end
  redis.call('HSET', facts, 'last', '0')
end
local now = redis.call('TIME')
local present = now[1] * 1000000 + now[2]
if not epoch or epoch == ARGV[2] then
  epoch = ARGV[1]
  high = math.max(high, present)
  redis.call('HSET', facts, 'epoch', epoch, 'high', string.format('%.0f', high), 'began', string.format('%.0f', high))
end
if run then
  redis.call('HSET', facts, 'run', run)
end
-- Nodes of such a release may live beside us while it is replaced, and nobody needs it afterwards.
redis.call('EXPIRE', KEYS[#KEYS], 3600)
if not known[5] then -- a log from before sizes were noted: all that is in it may be large
  redis.call('HSET', facts, 'large', known[6] or '0')
end
-- Who comes out of another epoch begins where this one did: what has been appended since is new to it.
if ARGV[2] ~= '' then
  high = tonumber(redis.call('HGET', facts, 'began') or high)
else -- at the present: the position of the newest event is no cursor for those who may not read it
  high = math.max(high, present)
  redis.call('HSET', facts, 'high', string.format('%.0f', high))
end
local answer = {'opened', epoch, string.format('%.0f', high)}
for shard = 0, shards - 1 do
  local stands = redis.call('HMGET', KEYS[3 + shard * 2], 'last', 'floor')
  answer[#answer + 1] = stands[1] or '0'
  answer[#answer + 1] = dropped(KEYS[4 + shard * 2], stands[2], stands[1])
end
return answer
