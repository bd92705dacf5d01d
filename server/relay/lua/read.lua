-- Entries after a position, in the log's order, together with the floors as they are in the same moment.
-- KEYS: facts, then facts and stream of each shard to be read. ARGV: position, most entries.
-- Gives {epoch, floor of each shard ..., entries}; an entry is {which of these shards, id, fields}, and in several of
-- them it is there once.
local answer = {redis.call('HGET', KEYS[1], 'epoch') or ''}
local most, shards = tonumber(ARGV[2]), (#KEYS - 1) / 2
local chunk = math.min(most, math.max(16, math.ceil(most / shards)))
local heads = {}
local function fetch(number, after)
  local from = string.format('%.0f', after + 1)
  heads[number] = {at = 1, some = redis.call('XRANGE', KEYS[1 + number * 2], from, '+', 'COUNT', chunk)}
end
local function head(number)
  local one = heads[number]
  if one.at > #one.some and #one.some == chunk then
    fetch(number, tonumber(string.match(one.some[chunk][1], '^%d+')))
    one = heads[number]
  end
  return one.some[one.at]
end
for number = 1, shards do
  local stands = redis.call('HMGET', KEYS[number * 2], 'floor', 'last')
  answer[1 + number] = dropped(KEYS[1 + number * 2], stands[1], stands[2])
  fetch(number, tonumber(ARGV[1]))
end
local entries, last = {}, nil
while #entries < most do
  local lowest, which, entry
  for number = 1, shards do
    local candidate = head(number)
    if candidate then
      local position = tonumber(string.match(candidate[1], '^%d+'))
      if not lowest or position < lowest then
        lowest, which, entry = position, number, candidate
      end
    end
  end
  if not entry then
    break
  end
  heads[which].at = heads[which].at + 1
  if lowest ~= last then
    entries[#entries + 1] = {which, entry[1], entry[2]}
  end
  last = lowest
end
answer[#answer + 1] = entries
return answer
