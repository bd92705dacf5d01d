-- What append.lua and tick.lua share; put before both.

-- True if the log is not the one that a node knows: another epoch, or turned back by a failover or a crash to before an
-- entry that the node has seen, or to before a cursor that it gave out with others' entries added since, of which some
-- may be below that cursor.
local function turned(epoch, newest, given, known_epoch, last, high)
  last = tonumber(last or 0)
  return known_epoch ~= epoch or last < tonumber(newest) or (high < tonumber(given) and last ~= tonumber(newest))
end

-- Forget the own id of an entry that goes, and give its bytes.
local function forget(own, position, fields)
  local size = 0
  for at = 1, #fields, 2 do
    if fields[at] == 's' then
      size = tonumber(fields[at + 1]) or 0
    elseif fields[at] == 'i' then
      local id = fields[at + 1]
      local places = ' ' .. (redis.call('HGET', own, id) or '') .. ' '
      local from, to = string.find(places, ' ' .. position .. ' ', 1, true)
      if from then
        local rest = string.match(string.sub(places, 1, from) .. string.sub(places, to + 1), '^%s*(.-)%s*$')
        if rest == '' then
          redis.call('HDEL', own, id)
        else
          redis.call('HSET', own, id, rest)
        end
      end
    end
  end
  return size
end
