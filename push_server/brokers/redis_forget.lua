-- Forget revocations that are over.
--
-- KEYS[1]  all revocations, a hash: what is meant -> "<before> <expires>"
-- ARGV[1]  now
-- ARGV[2…] what is meant
--
-- What a node holds to be over may have been prolonged by another.

for i = 2, #ARGV do
    local expires = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', ' (%S+)$')
    if not tonumber(expires) or tonumber(expires) <= tonumber(ARGV[1]) then
        redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
return 1
