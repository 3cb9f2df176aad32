"""The outbox's transactions, run by Redis as one step each; times are the server's, in ms.

A notice is a hash: `origin` names the host that it goes to; `token` grows each time somebody takes
it and fences off those before; `tries` and `error` say what became of it so far. A host has its
notices in a sorted set by when each is due (of one that is taken, when that lease ends), those that
are taken in another, and a hash: `failures` in a row, `gate` before which it is not asked again,
`bytes` that wait for it. `hosts` says when to look at each host, `dead` when a notice was given up.
"""

# Bytes that may wait for one host, and for all of them; and what a notice takes beside its body.
_MOST_HOST_BYTES = 32 * 1024 * 1024
_MOST_BYTES = 256 * 1024 * 1024
_OVERHEAD_BYTES = 512
# Notices that were given up, their bytes, and for how long they are kept.
_MOST_DEAD = 1000
_MOST_DEAD_BYTES = 32 * 1024 * 1024
_DEAD_MS = 7 * 24 * 3600 * 1000
# Hosts that are looked at in one step.
_MOST_LOOKED_AT = 64

# For scripts that begin with `now`. Undeclared keys: none of this works on a cluster of several.
FUNCTIONS = f"""
local box = 'comfyfleet:webhooks:'
local hosts, dead, total = box .. 'hosts', box .. 'dead', box .. 'bytes'
local dead_total = box .. 'dead_bytes'
local function notice(id) return box .. 'notice:' .. id end
local function host(origin) return box .. 'host:' .. origin end
local function due(origin) return box .. 'due:' .. origin end
local function taken(origin) return box .. 'taken:' .. origin end

local function look(origin)
    local first = redis.call('ZRANGE', due(origin), 0, 0, 'WITHSCORES')
    if not first[1] then
        redis.call('ZREM', hosts, origin)
        redis.call('DEL', host(origin), taken(origin))
        return
    end
    local gate = tonumber(redis.call('HGET', host(origin), 'gate') or 0)
    redis.call('ZADD', hosts, math.max(tonumber(first[2]), gate), origin)
end

local function weigh(id, origin, sign)
    local size = sign * tonumber(redis.call('HGET', notice(id), 'size'))
    redis.call('HINCRBY', host(origin), 'bytes', size)
    redis.call('INCRBY', total, size)
end

local function put(id, job, event, origin, url, body)
    if redis.call('EXISTS', notice(id)) == 1 then return 1 end
    local size = #body + {_OVERHEAD_BYTES}
    local waiting = tonumber(redis.call('HGET', host(origin), 'bytes') or 0)
    local all = tonumber(redis.call('GET', total) or 0)
    if waiting + size > {_MOST_HOST_BYTES} or all + size > {_MOST_BYTES} then return 0 end
    redis.call('HSET', notice(id), 'job', job, 'event', event, 'origin', origin, 'url', url,
        'body', body, 'at', now, 'size', size, 'tries', 0)
    weigh(id, origin, 1)
    redis.call('ZADD', due(origin), now, id)
    look(origin)
    return 1
end

local function take_out(id, origin)
    redis.call('ZREM', due(origin), id)
    redis.call('ZREM', taken(origin), id)
    weigh(id, origin, -1)
end

local function revive(id)
    if redis.call('ZREM', dead, id) == 0 then return false end
    redis.call('DECRBY', dead_total, redis.call('HGET', notice(id), 'size'))
    return true
end

local function trim()
    local function is_too_much(oldest)
        return tonumber(oldest[2]) < now - {_DEAD_MS}
            or redis.call('ZCARD', dead) > {_MOST_DEAD}
            or tonumber(redis.call('GET', dead_total) or 0) > {_MOST_DEAD_BYTES}
    end
    local oldest = redis.call('ZRANGE', dead, 0, 0, 'WITHSCORES')
    while oldest[1] and is_too_much(oldest) do
        revive(oldest[1])
        redis.call('DEL', notice(oldest[1]))
        oldest = redis.call('ZRANGE', dead, 0, 0, 'WITHSCORES')
    end
end

local function shut(origin, ms, failures)
    if tonumber(ms) == 0 then return end
    -- Of several that fail together each knew of the same failures before.
    redis.call('HSET', host(origin), 'failures', failures + 1, 'gate', now + ms)
end
"""

# ARGV: id, job id, event, origin, URL, body. 0: there is no room.
PUT = "return put(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])"

# ARGV: lease ms, how many of one host may be taken at once. A host that failed gets one at a time.
TAKE = f"""
for _, origin in ipairs(redis.call('ZRANGEBYSCORE', hosts, '-inf', now, 'LIMIT', 0,
        {_MOST_LOOKED_AT})) do
    redis.call('ZREMRANGEBYSCORE', taken(origin), '-inf', now)
    local failures = tonumber(redis.call('HGET', host(origin), 'failures') or 0)
    local most = failures > 0 and 1 or tonumber(ARGV[2])
    local id = redis.call('ZRANGEBYSCORE', due(origin), '-inf', now, 'LIMIT', 0, 1)[1]
    if redis.call('ZCARD', taken(origin)) >= most then
        local first = redis.call('ZRANGE', taken(origin), 0, 0, 'WITHSCORES')
        redis.call('ZADD', hosts, first[2], origin)
    elseif not id then
        look(origin)
    elseif redis.call('EXISTS', notice(id)) == 0 then
        redis.call('ZREM', due(origin), id)
        look(origin)
    else
        local token = redis.call('HINCRBY', notice(id), 'token', 1)
        redis.call('ZADD', due(origin), now + ARGV[1], id)
        redis.call('ZADD', taken(origin), now + ARGV[1], id)
        redis.call('ZADD', hosts, now, origin)
        local n = redis.call('HMGET', notice(id), 'job', 'event', 'url', 'body', 'at', 'tries')
        return {{id, token, origin, n[1], n[2], n[3], n[4], now - n[5], tonumber(n[6]), failures}}
    end
end
return false
"""

# ARGV: id.
DELIVERED = """
local origin = redis.call('HGET', notice(ARGV[1]), 'origin')
if not origin or redis.call('ZSCORE', dead, ARGV[1]) then return 0 end
take_out(ARGV[1], origin)
redis.call('DEL', notice(ARGV[1]))
redis.call('HDEL', host(origin), 'failures', 'gate')
look(origin)
return 1
"""

# ARGV: id, token, error, ms until the host is asked again or 0, its failures before, ms until the
# notice is due again.
POSTPONE = """
local kept = redis.call('HMGET', notice(ARGV[1]), 'token', 'origin')
if kept[1] ~= ARGV[2] or redis.call('ZSCORE', dead, ARGV[1]) then return 0 end
local origin = kept[2]
redis.call('HINCRBY', notice(ARGV[1]), 'tries', 1)
redis.call('HSET', notice(ARGV[1]), 'error', ARGV[3])
redis.call('ZADD', due(origin), now + ARGV[6], ARGV[1])
redis.call('ZREM', taken(origin), ARGV[1])
shut(origin, ARGV[4], ARGV[5])
look(origin)
return 1
"""

# ARGV: id, token, error, ms until the host is asked again or 0, its failures before.
GIVE_UP = """
local kept = redis.call('HMGET', notice(ARGV[1]), 'token', 'origin')
if kept[1] ~= ARGV[2] or redis.call('ZSCORE', dead, ARGV[1]) then return 0 end
local origin = kept[2]
redis.call('HINCRBY', notice(ARGV[1]), 'tries', 1)
redis.call('HSET', notice(ARGV[1]), 'error', ARGV[3])
take_out(ARGV[1], origin)
shut(origin, ARGV[4], ARGV[5])
look(origin)
redis.call('ZADD', dead, now, ARGV[1])
redis.call('INCRBY', dead_total, redis.call('HGET', notice(ARGV[1]), 'size'))
trim()
return 1
"""

# ARGV: id. 0: it is not known.
RETRY = """
local id = ARGV[1]
local origin = redis.call('HGET', notice(id), 'origin')
if not origin then return 0 end
if revive(id) then weigh(id, origin, 1) end
if not redis.call('ZSCORE', taken(origin), id) then
    redis.call('HSET', notice(id), 'at', now, 'tries', 0)
    redis.call('ZADD', due(origin), now, id)
end
redis.call('HDEL', host(origin), 'gate')
look(origin)
return 1
"""

# ARGV: id. 0: it is not known.
DISCARD = """
local id = ARGV[1]
local origin = redis.call('HGET', notice(id), 'origin')
if not origin then return 0 end
if not revive(id) then take_out(id, origin) end
redis.call('DEL', notice(id))
look(origin)
return 1
"""

# ARGV: how many of those that wait, at most. These, the soonest due of each host first, and all the
# dead, of which there are not many.
LIST = """
trim()
local found, most = {}, tonumber(ARGV[1])
local function add(ids, state, limit)
    for i = 1, #ids, 2 do
        if #found >= limit then return end
        local n = redis.call('HMGET', notice(ids[i]), 'job', 'event', 'url', 'tries', 'error', 'at')
        if n[1] then
            local told = {ids[i], state, ids[i + 1], n[1], n[2], n[3], n[4], n[5] or '', n[6]}
            table.insert(found, told)
        end
    end
end
for _, origin in ipairs(redis.call('ZRANGE', hosts, 0, -1)) do
    add(redis.call('ZRANGE', due(origin), 0, most - 1, 'WITHSCORES'), 'waiting', most)
end
add(redis.call('ZREVRANGE', dead, 0, -1, 'WITHSCORES'), 'given up', math.huge)
return found
"""
