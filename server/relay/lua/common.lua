-- What the scripts share; put before those that use it.

-- True if the log is not the one that a node knows: another epoch, or turned back by a failover or a crash to before an
-- entry that the node has seen, or to before a cursor that it gave out with others' entries added since, of which some
-- may be below that cursor.
local function turned(epoch, newest, given, known_epoch, last, high)
  last = tonumber(last or 0)
  return known_epoch ~= epoch or last < tonumber(newest) or (high < tonumber(given) and last ~= tonumber(newest))
end

-- Which run of Redis this is: another name after each start. Of the one that has these keys, if there are several.
local function run_here()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
end

-- Up to where entries of a stream were dropped: by us, as the facts say, or by anybody (XTRIM, DEL, an eviction, a trim of
-- ours whose facts could not be written): the first entry names the one before it.
local function dropped(stream, floor, last)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local before = first and '0' or last or '0'
  if first then
    for at = 1, #first[2], 2 do
      if first[2][at] == 'p' then
        before = first[2][at + 1]
      end
    end
  end
  floor = floor or '0'
  return (tonumber(before) or 0) > tonumber(floor) and before or floor
end

-- Forget the own id of an entry that goes from `place` (its position, and its shard in a log that is split), and give
-- its bytes.
local function forget(own, place, fields)
  local size = 0
  for at = 1, #fields, 2 do
    if fields[at] == 's' then
      size = tonumber(fields[at + 1]) or 0
    elseif fields[at] == 'i' then
      local id = fields[at + 1]
      local places = redis.call('HGET', own, id)
      if places == place then
        redis.call('HDEL', own, id)
      elseif places and string.sub(places, 1, #place + 1) == place .. ' ' then -- as a rule the oldest goes first
        redis.call('HSET', own, id, string.sub(places, #place + 2))
      elseif places then
        local from, to = string.find(places .. ' ', ' ' .. place .. ' ', 1, true)
        if from then
          redis.call('HSET', own, id, string.sub(places, 1, from - 1) .. string.sub(places, to))
        end
      end
    end
  end
  return size
end
