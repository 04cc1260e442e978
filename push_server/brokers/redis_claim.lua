-- Claim a key that nobody holds.
--
-- KEYS[1]  the claim; its value is when it ends, unix seconds
-- ARGV[1]  now
-- ARGV[2]  when the new claim ends
-- ARGV[3]  the same from now, milliseconds
--
-- Returns 1 if it is ours now, 0 if somebody else has it.

local ends = tonumber(redis.call('GET', KEYS[1]))
if ends and ends > tonumber(ARGV[1]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
