-- Where some channels stand.
--
-- KEYS[1], and ARGV[1] to ARGV[3]: see redis_log.lua
-- ARGV[4]   what stands before the name of a channel in the key of its stream
-- ARGV[5…]  the channels
--
-- Returns "<epoch of the log> <epoch> <offset> <tag> …", the last three of each channel: one string
-- is read in a tenth of the time that a list takes.
-- The keys of the streams are made here, so this needs one Redis and no cluster.

local reply = {digits(log_epoch())}
for index = 5, #ARGV do
    local epoch, offset, tag = channel_head(ARGV[4] .. ARGV[index], ARGV[index])
    local last = #reply
    reply[last + 1], reply[last + 2], reply[last + 3] = digits(epoch), digits(offset), tag
end
return table.concat(reply, ' ')
