-- Write down that a node has a user in a channel, or not any more; tell the channel if the user
-- came, or left, as far as all nodes are concerned.
--
-- KEYS[1]  who is in the channel, a hash: "<user> <node>" -> "<connections> <name>"
-- KEYS[2]  what this node has, a sorted set of "<channel> <user>"
-- KEYS[3]  the nodes by the end of their lease, a sorted set
-- ARGV[1]  user
-- ARGV[2]  node
-- ARGV[3]  "<connections> <name>"; empty: not any more
-- ARGV[4]  channel
-- ARGV[5]  bus name of the channel; empty: nobody is told
-- ARGV[6]  the end of this node's lease: nothing is written without one
--
-- Returns 1 if this node had no lease, or some of what it had has been taken out meanwhile
-- (redis_absent.lua): then it has to tell everything again.
-- A node whose lease is over counts until its entries are taken out: then that is told.

local user, node, value, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local field = user .. ' ' .. node
local robbed = false
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', 0)) do
    robbed = robbed or other == node
end
local new = redis.call('ZADD', KEYS[3], ARGV[6], node)
if robbed then
    new = 1
end
local before = redis.call('HGET', KEYS[1], field)
local kind
if value == '' then
    redis.call('HDEL', KEYS[1], field)
    redis.call('ZREM', KEYS[2], channel .. ' ' .. user)
    kind = before and 'leave'
else
    redis.call('HSET', KEYS[1], field, value)
    redis.call('ZADD', KEYS[2], 0, channel .. ' ' .. user)
    kind = not before and 'join'
end
if not kind or ARGV[5] == '' then
    return new
end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf')) do
    if other ~= node and redis.call('HGET', KEYS[1], user .. ' ' .. other) then
        return new
    end
end
local name = string.match(before or value, '^%d+ (.*)$') or ''
redis.call('PUBLISH', ARGV[5], '! ' .. kind .. ' ' .. user .. ' ' .. name)
return new
