"""The ledger's transactions, run by Redis as one step each; times are the server's own clock.

A job is a hash: `token` grows with each claim and fences off earlier owners; `until` is the end of
the lease and `early` the end of a pause, in milliseconds; `live` is 1 while an owner has not let
go; `record` is ours to read; `outcome` and `detail` say how it ended; `cancelled` that it is to.
"""

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

# KEYS: job. ARGV: lease ms, keep ms, the record of a job that nobody had before, grace ms.
CLAIM = (
    _NOW
    + """
local j = redis.call('HMGET', KEYS[1], 'outcome', 'detail', 'cancelled', 'until', 'early', 'live')
if j[1] then return {'ended', j[1], j[2]} end
if j[3] then return {'cancelled'} end
if j[6] == '1' and tonumber(j[4]) > now then return {'held', tonumber(j[4]) - now} end
if j[6] == '1' then
    -- While Redis was away nobody could renew.
    local up = tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)'))
    local grace = ARGV[4] - up * 1000
    if grace > 0 then return {'held', grace} end
end
if tonumber(j[5] or 0) > now then return {'held', tonumber(j[5]) - now} end
local token = redis.call('HINCRBY', KEYS[1], 'token', 1)
local isnew = redis.call('HSETNX', KEYS[1], 'record', ARGV[3])
redis.call('HSET', KEYS[1], 'until', now + ARGV[1], 'live', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'claimed', token, isnew, j[6] == '1' and 1 or 0, redis.call('HGET', KEYS[1], 'record')}
"""
)

# KEYS: job. ARGV: token, lease ms. 0: somebody else's now; 2: it is to be cancelled.
RENEW = (
    _NOW
    + """
local j = redis.call('HMGET', KEYS[1], 'token', 'outcome', 'cancelled', 'live')
if j[1] ~= ARGV[1] or j[2] or j[4] ~= '1' then return 0 end
redis.call('HSET', KEYS[1], 'until', now + ARGV[2])
return j[3] and 2 or 1
"""
)

# KEYS: job. ARGV: token, record.
SAVE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[2])
return 1
"""

# KEYS: job. ARGV: token, pause ms, keep ms, record.
RELEASE = (
    _NOW
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'live', '0', 'early', now + ARGV[2], 'record', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

# KEYS: job. ARGV: token, keep ms, outcome, detail.
END = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'live', '0', 'outcome', ARGV[3], 'detail', ARGV[4])
redis.call('HDEL', KEYS[1], 'record')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

# KEYS: job. The record of a job that nobody has and that has not ended.
UNOWNED = (
    _NOW
    + """
local j = redis.call('HMGET', KEYS[1], 'record', 'until', 'live')
if j[3] == '1' and tonumber(j[2]) > now then return false end
return j[1]
"""
)

# KEYS: job. ARGV: keep ms, 1 to cancel it also while somebody has it. The outcome, if it has one.
CANCEL = (
    _NOW
    + """
local j = redis.call('HMGET', KEYS[1], 'outcome', 'until', 'live')
if j[1] then return j[1] end
if ARGV[2] ~= '1' and j[3] == '1' and tonumber(j[2]) > now then return false end
redis.call('HSET', KEYS[1], 'cancelled', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return false
"""
)

# KEYS: places, prompts to stop at this place. ARGV: place, ms that it counts as live; 0: it is not.
ANNOUNCE = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if tonumber(ARGV[2]) > 0 then
    redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('SMEMBERS', KEYS[2])
"""
)

# KEYS: places. The live ones.
LIVE = (
    _NOW
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
"""
)
