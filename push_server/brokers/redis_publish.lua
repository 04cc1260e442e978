-- Publish one message: check the id, give it its place, keep it, trim, tell the other nodes.
-- One atomic step: either all of it happened or nothing.
--
-- KEYS[1], and ARGV[1] to ARGV[3]: see redis_log.lua
-- KEYS[2]   the channel's stream
-- KEYS[3]   what is remembered of the id: "<epoch> <offset> <digest> <expires>"
-- KEYS[4]   channels by the time at which all they keep will be too old, a sorted set
-- ARGV[4]   the channel
-- ARGV[5]   bus name of the channel
-- ARGV[6]   the connection that publishes
-- ARGV[7]   now, unix seconds
-- ARGV[8]   when the id can be forgotten, unix seconds
-- ARGV[9]   the same from now, milliseconds
-- ARGV[10]  digest of the data
-- ARGV[11]  tag of the id
-- ARGV[12]  header and
-- ARGV[13]  data of the publication, neither with a line end in it
-- ARGV[14]  its weight in bytes, never more than its JSON on the wire takes
-- ARGV[15]  publications to keep
-- ARGV[16]  seconds to keep them
-- ARGV[17]  bytes to keep
--
-- Returns {"placed", epoch, offset, tag of the publication before it}, {"seen", epoch, offset}
-- for an id that has its place already, or {"conflict"} for one that was used for other data.

local TRIM_EVERY = 8
-- Publications over the age or the bytes go in small steps, twice as fast as new ones come.

local stream, now = KEYS[2], tonumber(ARGV[7])
local epoch, offset, before, weight = channel_head(stream, ARGV[4])

local spent = redis.call('GET', KEYS[3])
if spent then
    local seen_epoch, seen, digest, expires = string.match(spent, '^(%d+) (%d+) (%x+) (%S+)$')
    -- An id of a log that was lost has no place any more.
    if seen_epoch and tonumber(seen_epoch) == epoch and tonumber(seen) <= offset
            and tonumber(expires) > now then
        if digest ~= ARGV[10] then
            return {'conflict'}
        end
        return {'seen', seen_epoch, seen}
    end
end

local function append()
    local size = tonumber(ARGV[15])
    -- Whole nodes of the stream are cheap to drop; what they hold too much, readers skip.
    return redis.pcall('XADD', stream, 'MAXLEN', size < 100 and '=' or '~', ARGV[15],
        digits(epoch) .. '-' .. digits(offset),
        'p', before, 'n', ARGV[7], 'w', digits(weight), 'h', ARGV[12], 'd', ARGV[13])
end

offset = offset + 1
local added = append()
if type(added) == 'table' and added.err
        and (string.find(added.err, 'equal or smaller', 1, true)
            or string.find(added.err, 'WRONGTYPE', 1, true)) then
    -- Something is there that we have not put there, or that we know nothing of any more.
    redis.call('DEL', stream)
    epoch, offset, before, weight = new_epoch(), 1, '0', 0
    added = append()
end
if type(added) == 'table' and added.err then
    return added
end
if offset == 1 then
    redis.call('XTRIM', stream, 'MINID', '=', digits(epoch) .. '-0')
end

weight = weight + tonumber(ARGV[14])
redis.call('HSET', KEYS[1], ARGV[4], table.concat(
    {digits(epoch), digits(offset), ARGV[11], digits(weight), '+'}, ' '))
redis.call('SET', KEYS[3], table.concat(
    {digits(epoch), digits(offset), ARGV[10], ARGV[8]}, ' '), 'PX', ARGV[9])
redis.call('ZADD', KEYS[4], string.format('%.6f', now + tonumber(ARGV[16])), ARGV[4])

if offset % TRIM_EVERY == 0 then
    local floor
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', 2 * TRIM_EVERY)) do
        local fields = entry[2]
        if fields[3] == 'n' and fields[5] == 'w'
                and (tonumber(fields[4]) or 0) > now - tonumber(ARGV[16])
                and weight - (tonumber(fields[6]) or 0) <= tonumber(ARGV[17]) then
            break
        end
        floor = entry[1]
    end
    if floor then
        redis.call('XTRIM', stream, 'MINID', '=', floor)
        redis.call('XDEL', stream, floor)
    end
end

redis.call('PUBLISH', ARGV[5], table.concat({
    ARGV[6] .. ' ' .. digits(epoch) .. '-' .. digits(offset) .. ' ' .. before,
    ARGV[12], ARGV[13]}, '\n'))
return {'placed', digits(epoch), digits(offset), before}
