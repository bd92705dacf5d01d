-- A page of the newest entries of a shard, newest first, together with its floor as it is in the same moment.
-- KEYS: facts of the log, facts and stream of the shard. ARGV: the id to begin with ("(ID": behind it), most entries,
-- most bytes: the page ends with the entry that reaches one of them.
-- Gives what read.lua gives for one shard.
local stands = redis.call('HMGET', KEYS[2], 'floor', 'last')
local answer = {redis.call('HGET', KEYS[1], 'epoch') or '', 0, dropped(KEYS[3], stands[1], stands[2])}
local from, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local entries, bytes, wanted, some = {}, 0, 0, nil
repeat
  wanted = next_few(wanted, bytes, #entries, most_bytes - bytes)
  some = redis.call('XREVRANGE', KEYS[3], from, '-', 'COUNT', wanted)
  for _, entry in ipairs(some) do
    bytes = bytes + bytes_of(entry[2])
    entries[#entries + 1] = {1, entry[1], entry[2]}
    from = '(' .. entry[1]
    if #entries >= most or bytes >= most_bytes then
      answer[2] = 1
      break
    end
  end
until answer[2] == 1 or #some < wanted
answer[4] = entries
return answer
