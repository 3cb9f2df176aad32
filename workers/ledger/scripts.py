"""The ledger's transactions, run by Redis as one step each; times are the server's own clock.

A job is a hash: `token` grows with each claim and fences off earlier owners; `until` is the end of
the lease and `early` the end of a pause, in milliseconds; `live` is 1 while an owner has not let
go, 2 if it has said that it is about to leave; `nonce` tells a claim that is repeated from a new
one; `begun` is when the job was first claimed; `record` is ours to read; `outcome` and `detail` say
how it ended; `cancelled` that it is to: 1 at once, 2 when its owner lets go; `manifest` is what it
is committed with where the store cannot decide about that.
"""

# A full server (maxmemory) lets a script go on that has begun to write.
_BEGIN = """
redis.call('ZREM', 'comfyfleet:places', '')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

# Servers of which this one is a former replica have taken writes that it may never have seen.
_PROMOTED = """
local function promoted()
    local told = redis.call('INFO', 'replication')
    local former = string.match(told, 'master_replid2:(%x+)')
    return former and string.find(former, '[^0]') and string.match(told, 'master_replid:(%x+)')
end
-- When it was first asked for a claim since then.
local function since(promotion)
    local kept = redis.call('HMGET', 'comfyfleet:promotion', 'id', 'since')
    if kept[1] == promotion then return tonumber(kept[2]) end
    redis.call('HSET', 'comfyfleet:promotion', 'id', promotion, 'since', now)
    return now
end
"""

# KEYS: job. ARGV: lease ms, keep ms, the record of a job that nobody had before, ms of grace after
# a restart, nonce, ms of grace after a failover.
CLAIM = (
    _BEGIN
    + _PROMOTED
    + """
local j = redis.call('HMGET', KEYS[1], 'outcome', 'detail', 'cancelled', 'until', 'early', 'live',
    'nonce', 'token')
if j[1] then return {'ended', now, j[1], j[2]} end
local live = j[6] == '1' or j[6] == '2'
if live and j[7] == ARGV[5] then
    local kept = redis.call('HMGET', KEYS[1], 'begun', 'record')
    return {'claimed', now, tonumber(j[8]), 0, 0, tonumber(kept[1]), kept[2]}
end
if live and tonumber(j[4]) > now then return {'held', now, tonumber(j[4]) - now} end
if live then
    -- While Redis was away nobody could renew.
    local up = tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)'))
    local grace = ARGV[4] - up * 1000
    local promotion = promoted()
    if promotion then grace = math.max(grace, since(promotion) + ARGV[6] - now) end
    if grace > 0 then return {'held', now, grace} end
end
if tonumber(j[5] or 0) > now and not j[3] then return {'held', now, tonumber(j[5]) - now} end
local token = tonumber(j[8] or 0) + 1
-- Not one that the former master gave away.
if promoted() then token = math.max(token, now) end
redis.call('HSET', KEYS[1], 'token', token)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if j[3] then return {'cancelled', now, token, redis.call('HGET', KEYS[1], 'record')} end
local isnew = redis.call('HSETNX', KEYS[1], 'record', ARGV[3])
redis.call('HSET', KEYS[1], 'until', now + ARGV[1], 'live', '1', 'nonce', ARGV[5])
redis.call('HSETNX', KEYS[1], 'begun', now)
local died = live and tonumber(j[6]) or 0
local kept = redis.call('HMGET', KEYS[1], 'begun', 'record')
return {'claimed', now, token, isnew, died, tonumber(kept[1]), kept[2]}
"""
)

# KEYS: job. ARGV: token, lease ms. 0: somebody else's now; 2: it is to be cancelled.
RENEW = (
    _BEGIN
    + """
local j = redis.call('HMGET', KEYS[1], 'token', 'outcome', 'cancelled', 'live')
if j[1] ~= ARGV[1] or j[2] or not j[4] or j[4] == '0' then return 0 end
redis.call('HSET', KEYS[1], 'until', now + ARGV[2])
return j[3] == '1' and 2 or 1
"""
)

# KEYS: job. ARGV: token.
LEAVE = (
    _BEGIN
    + """
local j = redis.call('HMGET', KEYS[1], 'token', 'live')
if j[1] == ARGV[1] and j[2] == '1' then redis.call('HSET', KEYS[1], 'live', '2') end
"""
)

# KEYS: job. ARGV: token, record.
SAVE = (
    _BEGIN
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[2])
return 1
"""
)

# KEYS: job. ARGV: token, pause ms, keep ms, record.
RELEASE = (
    _BEGIN
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'live', '0', 'early', now + ARGV[2], 'record', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

# KEYS: job. ARGV: token, a manifest. The first one that was given; nothing if somebody else's now.
COMMIT = (
    _BEGIN
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return false end
redis.call('HSETNX', KEYS[1], 'manifest', ARGV[2])
return redis.call('HGET', KEYS[1], 'manifest')
"""
)

# KEYS: job, dead letters. ARGV: token, keep ms, outcome, detail, job id, a dead letter or nothing.
END = (
    _BEGIN
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'record', 'early', 'until', 'nonce', 'manifest')
redis.call('HSET', KEYS[1], 'live', '0', 'outcome', ARGV[3], 'detail', ARGV[4])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[2], ARGV[5], ARGV[6]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

# KEYS: job. ARGV: keep ms, 1 to cancel it also while somebody has it. The outcome, if it has one.
CANCEL = (
    _BEGIN
    + """
local j = redis.call('HMGET', KEYS[1], 'outcome', 'cancelled')
if j[1] then return j[1] end
if j[2] ~= '1' then redis.call('HSET', KEYS[1], 'cancelled', ARGV[2] == '1' and '1' or '2') end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return false
"""
)

# KEYS: places, prompts to stop at this place. ARGV: place, ms that it counts as live; 0: it is not.
ANNOUNCE = (
    _BEGIN
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
    _BEGIN
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
"""
)
