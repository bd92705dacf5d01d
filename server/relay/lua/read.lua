-- A page of entries after a position, in the log's order, together with the floors as they are in the same moment.
-- KEYS: facts, then facts and stream of each shard to be read. ARGV: position, most entries, most bytes: the page ends
-- with the entry that reaches one of them.
-- Gives {epoch, 1 if the page was ended by that, else 0, floor of each shard ..., entries}; an entry is {which of these
-- shards, id, fields}, and in several of them it is there once.
local answer = {redis.call('HGET', KEYS[1], 'epoch') or '', 0}
local most, most_bytes, shards = tonumber(ARGV[2]), tonumber(ARGV[3]), (#KEYS - 1) / 2
local entries, last, bytes = {}, nil, 0
local heads = {}
local function fetch(number, after)
  local one = heads[number]
  one.wanted = next_few(one.wanted, one.bytes, one.fetched, most_bytes - bytes)
  local from = string.format('%.0f', after + 1)
  one.at, one.some = 1, redis.call('XRANGE', KEYS[1 + number * 2], from, '+', 'COUNT', one.wanted)
end
local function head(number)
  local one = heads[number]
  if one.at > #one.some and #one.some == one.wanted then
    fetch(number, tonumber(string.match(one.some[#one.some][1], '^%d+')))
  end
  return one.some[one.at]
end
for number = 1, shards do
  local stands = redis.call('HMGET', KEYS[number * 2], 'floor', 'last')
  answer[2 + number] = dropped(KEYS[1 + number * 2], stands[1], stands[2])
  heads[number] = {wanted = 0, bytes = 0, fetched = 0}
  fetch(number, tonumber(ARGV[1]))
end
while answer[2] == 0 do
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
  local one, size = heads[which], bytes_of(entry[2])
  one.at, one.bytes, one.fetched = one.at + 1, one.bytes + size, one.fetched + 1
  if lowest ~= last then
    bytes = bytes + size
    entries[#entries + 1] = {which, entry[1], entry[2]}
    answer[2] = (#entries >= most or bytes >= most_bytes) and 1 or 0
  end
  last = lowest
end
answer[#answer + 1] = entries
return answer
