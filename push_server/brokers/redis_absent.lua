-- Take out some of what a node had whose lease is over, and tell the channels who left with it.
--
-- KEYS[1]  what that node had, a sorted set of "<channel> <user>"
-- KEYS[2]  the nodes by the end of their lease, a sorted set
-- ARGV[1]  that node
-- ARGV[2]  now, unix seconds
-- ARGV[3]  how many entries at most
-- ARGV[4]  what stands before the name of a channel in the key of who is in it
-- ARGV[5]  the same for its bus name
--
-- Returns 1 with the last of them, 0 if there are more, -1 if the node is alive, or gone already.
-- The keys of the channels are made here, so this needs one Redis and no cluster.

local node, most = ARGV[1], tonumber(ARGV[3])
local over = false
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[2])) do
    over = over or other == node
end
if not over then
    return -1
end
-- Should it come back before the last entry is out, this says that some are.
redis.call('ZADD', KEYS[2], 0, node)
local others = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf')
local entries = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, most)
for _, entry in ipairs(entries) do
    redis.call('ZREM', KEYS[1], entry)
    local channel, user = string.match(entry, '^(%S+) (%S+)$')
    if channel then
        local key = ARGV[4] .. channel
        local value = redis.call('HGET', key, user .. ' ' .. node)
        redis.call('HDEL', key, user .. ' ' .. node)
        local elsewhere = not value
        for _, other in ipairs(others) do
            elsewhere = elsewhere or redis.call('HGET', key, user .. ' ' .. other)
        end
        if not elsewhere then
            local name = string.match(value, '^%d+ (.*)$') or ''
            redis.call('PUBLISH', ARGV[5] .. channel, '! leave ' .. user .. ' ' .. name)
        end
    end
end
if #entries < most then
    redis.call('ZREM', KEYS[2], node)
    return 1
end
return 0
