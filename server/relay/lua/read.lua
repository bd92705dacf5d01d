-- Entries after a position, together with the floors as they are in the same moment.
-- KEYS: facts, then facts and stream of each shard to be read. ARGV: position, most entries of each shard.
-- Gives {epoch, floor, entries, floor, entries, ...}.
local answer = {redis.call('HGET', KEYS[1], 'epoch') or ''}
local start = string.format('%.0f', tonumber(ARGV[1]) + 1)
for at = 2, #KEYS, 2 do
  answer[#answer + 1] = redis.call('HGET', KEYS[at], 'floor') or '0'
  answer[#answer + 1] = redis.call('XRANGE', KEYS[at + 1], start, '+', 'COUNT', ARGV[2])
end
return answer
