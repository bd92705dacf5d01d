-- What the scripts share; put before those that use it.

-- The most bytes of a payload that is not large: a full read of such entries is one megabyte (redis_pages.py).
local SMALL_BYTES = 2048

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

-- An own id and where an entry with it is (its position, and its shard in a log that is split), as the sorted set of
-- all of them has it: those of an id stand together, the oldest first, however many there are. No id has a NUL.
local function own_place(id, place)
  return id .. '\0' .. place
end

-- Forget the own id of an entry that goes from `place`, and give its bytes.
local function forget(own, place, fields)
  local size = 0
  for at = 1, #fields, 2 do
    if fields[at] == 's' then
      size = tonumber(fields[at + 1]) or 0
    elseif fields[at] == 'i' then
      redis.call('ZREM', own, own_place(fields[at + 1], place))
    end
  end
  return size
end

-- How many bytes the fields of an entry are.
local function bytes_of(fields)
  local bytes = 0
  for at = 1, #fields do
    bytes = bytes + #fields[at]
  end
  return bytes
end

-- How many entries to fetch next, after `wanted` at a time, if there is room for `left` bytes: few at first, then as many
-- as will be used if they are like the `fetched` ones. A script that holds hundreds of a megabyte stops Redis for a second.
local function next_few(wanted, bytes, fetched, left)
  local fit = fetched > 0 and math.ceil(left * fetched / math.max(1, bytes)) or 1
  return math.max(1, math.min(wanted * 2, fit, 16))
end
