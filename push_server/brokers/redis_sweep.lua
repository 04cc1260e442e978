-- Delete what channels keep that nobody publishes to any more; where they stand is kept.
--
-- KEYS[1]  the log, see redis_log.lua
-- KEYS[2]  channels by the time at which all they keep is too old, a sorted set
-- ARGV[1]  now, unix seconds
-- ARGV[2]  how many channels at most
-- ARGV[3]  what stands before the name of a channel in the key of its stream
--
-- The keys of the streams are made here, so this needs one Redis and no cluster.

local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, channel in ipairs(due) do
    local head = redis.call('HGET', KEYS[1], channel)
    -- First the head: a stream without it is no loss, a head without its stream is.
    if head then
        redis.call('HSET', KEYS[1], channel, (string.gsub(head, '%+$', '-')))
    end
    redis.call('DEL', ARGV[3] .. channel)
    redis.call('ZREM', KEYS[2], channel)
end
return #due
