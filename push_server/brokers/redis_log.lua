-- What every script on the log begins with; it is put in front of redis_publish.lua,
-- redis_read.lua and redis_heads.lua when they are loaded.
--
-- KEYS[1]  the log, a hash. "/epoch": the epoch of channels that have none of their own.
--          "/top": the highest epoch ever given. "/run": the run_id of the Redis process that
--          gave "/epoch". <channel>: where it stands, "<epoch> <offset> <tag> <weight> <kept>";
--          weight counts the bytes the channel ever had, kept is "+" while its stream exists.
--          No channel name begins with "/".
-- ARGV[1]  the epoch to give if one has to be given, unless a higher one was given before
-- ARGV[2]  run_id of this Redis process
-- ARGV[3]  "1" if a restart of Redis loses nothing (appendfsync always, never a replica)

-- Lua would write 1.8e+15.
local function digits(number)
    return string.format('%.0f', number)
end

local function new_epoch()
    local top = tonumber(redis.call('HGET', KEYS[1], '/top')) or 0
    local epoch = math.max(tonumber(ARGV[1]), top + 1)
    redis.call('HSET', KEYS[1], '/top', digits(epoch))
    return epoch
end

-- The epoch of the log. A new one if there is no log, or if Redis was restarted or replaced
-- since and may have lost the tail of it.
local known_epoch
local function log_epoch()
    if known_epoch then
        return known_epoch
    end
    local log = redis.call('HMGET', KEYS[1], '/epoch', '/run')
    local epoch = tonumber(log[1])
    if not epoch or log[2] ~= ARGV[2] then
        if not epoch or ARGV[3] ~= '1' then
            epoch = new_epoch()
        end
        redis.call('HSET', KEYS[1], '/epoch', digits(epoch), '/run', ARGV[2])
    end
    known_epoch = epoch
    return epoch
end

-- Epoch, offset, tag and weight of a channel. A new epoch if its stream is gone.
-- The ids of a stream are <epoch>-<offset>.
local function channel_head(stream, channel)
    local epoch = log_epoch()
    local known = redis.call('HGET', KEYS[1], channel) or ''
    local own, offset, tag, weight, kept = string.match(
        known, '^(%d+) (%d+) ([%w_-]+) (%d+) ([+-])$')
    if not own or tonumber(own) < epoch then
        return epoch, 0, '0', 0
    end
    if kept == '+' and redis.call('EXISTS', stream) == 0 then
        epoch = new_epoch()
        redis.call('HSET', KEYS[1], channel, digits(epoch) .. ' 0 0 0 -')
        return epoch, 0, '0', 0
    end
    return tonumber(own), tonumber(offset), tag, tonumber(weight)
end

