-- Entries after a position, together with the floor as it is in the same moment.
-- KEYS: facts, stream. ARGV: position, most entries.
-- Gives {epoch, floor, entries}.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'floor')
local entries = redis.call('XRANGE', KEYS[2], string.format('%.0f', tonumber(ARGV[1]) + 1), '+', 'COUNT', ARGV[2])
return {known[1] or '', known[2] or '0', entries}
