-- Remember a revocation and tell all nodes.
--
-- KEYS[1]  all revocations, a hash: what is meant -> "<before> <expires>"
-- ARGV[1]  what is meant
-- ARGV[2]  tokens issued at or before this time are meant
-- ARGV[3]  when the revocation can be forgotten
-- ARGV[4]  bus name of all nodes
-- ARGV[5]  what to tell them
--
-- Of two revocations of the same, the later times hold.

local function later(one, other)
    if tonumber(one) and tonumber(one) > tonumber(other) then
        return one
    end
    return other
end

local before, expires = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) (%S+)$')
redis.call('HSET', KEYS[1], ARGV[1], later(before, ARGV[2]) .. ' ' .. later(expires, ARGV[3]))
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
