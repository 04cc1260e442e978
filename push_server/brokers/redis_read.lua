-- Where a channel stands, and what it keeps.
--
-- KEYS[1], and ARGV[1] to ARGV[3]: see redis_log.lua
-- KEYS[2]  the channel's stream
-- ARGV[4]  the channel
-- ARGV[5]  "head": only where it stands; "all": everything kept; or an offset: what lies beyond
-- ARGV[6]  the epoch of that offset; of another epoch only the head is told
--
-- Returns {epoch, offset, tag, entry, …}. An entry has the form that goes over the bus; one
-- that is not ours has only its first line.

local epoch, offset, tag = channel_head(KEYS[2], ARGV[4])
local reply = {digits(epoch), digits(offset), tag}
local after = tonumber(ARGV[5])
if ARGV[5] == 'all' then
    after = 0
elseif not after or tonumber(ARGV[6]) ~= epoch then
    return reply
end
if after >= offset then
    return reply
end
local prefix = digits(epoch) .. '-'
local found = redis.call('XRANGE', KEYS[2], prefix .. digits(after + 1), prefix .. digits(offset))
for index, entry in ipairs(found) do
    local id, fields = entry[1], entry[2]
    local line = '- ' .. id
    if #fields == 10 and fields[1] == 'p' and fields[7] == 'h' and fields[9] == 'd' then
        line = table.concat({line .. ' ' .. fields[2], fields[8], fields[10]}, '\n')
    end
    reply[index + 3] = line
end
return reply
