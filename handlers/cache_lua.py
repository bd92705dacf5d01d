"""What the nodes do in Redis with kept answers, each in one step: Lua scripts.

Owns the keys and their form. All begin with KEYS[1], `{PREFIX}:http:`, whose braces put them into one slot:

- `cache:HASH`   an answer: body, about (JSON), tags (JSON), drops ("1": a change drops it), until, changed, member
- `index`        all members, by when they are over; `route:ROUTE` and `tag:TAG` those of a route or with a tag
- `sizes`        how many entries and bytes there are, in all and of each route
- `mark:…`       when something was dropped, for as long as a computation may last
- `lock:HASH`    who computes an answer

A member is `HASH BYTES ID ROUTE`. The id differs each time that an answer is written, so the members of what was there
before are known for old, and go when they come up.

Times are of Redis's own clock: milliseconds, but microseconds where a drop and a computation are told apart. Only
commands that the log of the channels needs too are used (config/redis/ringcast.acl).
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

_COMMON = """
local P = KEYS[1]
local time = redis.call('TIME')
local tick = time[1] * 1000000 + time[2]  -- exact in a double
local now = math.floor(tick / 1000)

local function size(field)
  return tonumber(redis.call('HGET', P .. 'sizes', field)) or 0
end

local function add(field, number)
  redis.call('HSET', P .. 'sizes', field, string.format('%.0f', size(field) + number))
end

local function book(route, entries, bytes)
  add('entries', entries)
  add('bytes', bytes)
  add('entries ' .. route, entries)
  add('bytes ' .. route, bytes)
end

-- Take an answer off the books, and away; its route, if it was there.
local function forget(member)
  local hash, bytes, route = string.match(member, '^(%x+) (%d+) %S+ (.*)$')
  redis.call('ZREM', P .. 'route:' .. route, member)
  if redis.call('ZREM', P .. 'index', member) == 0 then return nil end
  book(route, -1, -bytes)
  if redis.call('HGET', P .. 'cache:' .. hash, 'member') ~= member then return nil end
  redis.call('DEL', P .. 'cache:' .. hash)
  return route
end

-- The answer, for how long it is kept yet, and how long ago it changed (-1: it did not).
local function read(hash)
  local found = redis.call('HMGET', P .. 'cache:' .. hash, 'body', 'about', 'until', 'changed')
  if not found[1] or tonumber(found[3]) <= now then return nil end
  return {found[1], found[2], found[3] - now, found[4] and now - found[4] or -1}
end

local function release(hash, token)
  if token ~= '' and redis.call('GET', P .. 'lock:' .. hash) == token then
    redis.call('DEL', P .. 'lock:' .. hash)
  end
end

-- What a drop looks at next: members and scores of ARGV[1], from a score on. By scores, which do not change, and not by
-- ranks: what others add and remove meanwhile lets nothing slip through.
local function walked()
  if ARGV[2] ~= '' then redis.call('SET', P .. 'mark:' .. ARGV[2], tick, 'EX', 60) end
  return redis.call('ZRANGE', P .. ARGV[1], ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES')
end

-- How many went of each route, and what is left of it.
local function told(answer, dropped)
  for route, number in pairs(dropped) do
    for _, value in ipairs({route, number, size('entries ' .. route), size('bytes ' .. route)}) do
      answer[#answer + 1] = value
    end
  end
  return answer
end
"""

_READ = """
return read(ARGV[1])
"""

# ARGV: hash, token, milliseconds of the lock, whether an answer will do. The time, the lock (1: ours), the answer.
_CLAIM = """
local found = ARGV[4] == '1' and read(ARGV[1])
if found then return {tick, 0, found} end
local taken = redis.call('SET', P .. 'lock:' .. ARGV[1], ARGV[2], 'NX', 'PX', ARGV[3])
return {tick, taken and 1 or 0}
"""

_RELEASE = """
release(ARGV[1], ARGV[2])
"""

# ARGV: hash, token, began, id, route, bytes, milliseconds to keep, most entries, most bytes, body, about, whether a
# change drops it, the tags as JSON, then each tag. Whether it is kept, and what there is of the route.
_WRITE = """
local hash, token, began, id, route, bytes, keep = unpack(ARGV, 1, 7)
local entry = P .. 'cache:' .. hash
release(hash, token)

local names = {P .. 'mark:all', P .. 'mark:route:' .. route}
for i = 14, #ARGV do names[#names + 1] = P .. 'mark:tag:' .. ARGV[i] end
local changed = false
for i, mark in ipairs(redis.call('MGET', unpack(names))) do
  if mark and tonumber(mark) >= tonumber(began) then
    if i <= 2 or ARGV[12] == '1' then return {0} end
    changed = math.min(changed or now, math.floor(mark / 1000))
  end
end

for _, member in ipairs(redis.call('ZRANGE', P .. 'index', '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
  forget(member)
end
local before = redis.call('HGET', entry, 'member')
if before then
  forget(before)
  redis.call('DEL', entry)
end
-- What is over soonest makes room.
local room = 0
while size('entries') >= tonumber(ARGV[8]) or size('bytes') + bytes > tonumber(ARGV[9]) do
  local first = redis.call('ZRANGE', P .. 'index', 0, 0)[1]
  room = room + 1
  if not first then redis.call('DEL', P .. 'sizes') end  -- somebody has deleted keys
  if room > 100 or not first then return {0} end
  forget(first)
end

local over = now + keep
local member = hash .. ' ' .. bytes .. ' ' .. id .. ' ' .. route
redis.call('HSET', entry, 'body', ARGV[10], 'about', ARGV[11], 'tags', ARGV[13], 'drops', ARGV[12],
           'until', over, 'member', member)
if changed then redis.call('HSET', entry, 'changed', changed) end
redis.call('EXPIRE', entry, math.ceil(keep / 1000))
redis.call('ZADD', P .. 'index', over, member)
redis.call('ZADD', P .. 'route:' .. route, over, member)
book(route, 1, bytes)
for i = 14, #ARGV do
  local tag = P .. 'tag:' .. ARGV[i]
  redis.call('ZREMRANGEBYSCORE', tag, '-inf', now)
  redis.call('ZADD', tag, over, member)
  local last = redis.call('ZRANGE', tag, -1, -1, 'WITHSCORES')[2]
  redis.call('EXPIRE', tag, math.ceil((last - now) / 1000) + 1)
end
return {1, size('entries ' .. route), size('bytes ' .. route)}
"""

# ARGV: the set, the mark ('' none), from which score on, how many, whether it is a change. How many were looked at, the
# last score, then as `told`.
_DROP = """
local change, last, dropped = ARGV[5] == '1', ARGV[3], {}
local members = walked()
for i = 1, #members, 2 do
  local member = members[i]
  local entry = P .. 'cache:' .. string.match(member, '^%x+')
  local found = redis.call('HMGET', entry, 'member', 'drops', 'changed')
  if change and found[1] == member and found[2] == '0' then
    if not found[3] then redis.call('HSET', entry, 'changed', now) end
  else
    local route = forget(member)
    redis.call('ZREM', P .. ARGV[1], member)
    if route then dropped[route] = (dropped[route] or 0) + 1 end
  end
  last = members[i + 1]
end
return told({#members / 2, last}, dropped)
"""

# ARGV: the set, the mark ('' none), from which score on, how many. How many were looked at, the last score, then each
# member that is there with what it is about and its tags.
_PAGE = """
local page, last = {}, ARGV[3]
local members = walked()
for i = 1, #members, 2 do
  local hash = string.match(members[i], '^%x+')
  local found = redis.call('HMGET', P .. 'cache:' .. hash, 'about', 'tags', 'member')
  if found[3] == members[i] then page[#page + 1] = {members[i], found[1], found[2]} end
  last = members[i + 1]
end
return {#members / 2, last, page}
"""

# ARGV: members. As `told`.
_FORGET = """
local dropped = {}
for _, member in ipairs(ARGV) do
  local route = forget(member)
  if route then dropped[route] = (dropped[route] or 0) + 1 end
end
return told({}, dropped)
"""


class Script(NamedTuple):
    """A script's text and the name that Redis knows it by."""

    text: str
    digest: str


def _script(body: str) -> Script:
    text = _COMMON + body
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


READ, CLAIM, RELEASE, WRITE, DROP, PAGE, FORGET = map(_script, (_READ, _CLAIM, _RELEASE, _WRITE, _DROP, _PAGE, _FORGET))
