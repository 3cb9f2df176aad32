"""What the transport has Redis do, each script one step for all to see.

All times are the server's, in seconds: the clocks of workers may differ.
"""

# Names of taken lists, by the server's time (seconds) at which each was renewed last.
TAKERS = "comfyfleet:takers"

# Of a queue: channels whose server has nothing to do, by the server's time (seconds) until which
# that holds.
HUNGRY = "comfyfleet:hungry:"

# Where a channel is announced that has become hungry.
CALLS = "comfyfleet:calls"

NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

# A full server (maxmemory) lets a script go on that has begun to write.
BEGIN_TO_WRITE = """
redis.call('ZREM', KEYS[1], '')
"""

PUT_BACK = """
local function put_back(taken)
  local source = string.match(taken, '^comfyfleet:taken:%x+:(.+)$')
  while source and redis.call('LMOVE', taken, source, 'LEFT', 'RIGHT') do end
end
"""

# KEYS: takers, the hungry of each queue, then the lists to take from, the most urgent first, of
# each level one a queue in the same order. ARGV: how taken lists begin, this channel, the number of
# queues, for how long (seconds) it is hungry if it finds nothing, or 0.
# What has been taken before, with a reply that got lost or a failed registration, comes first.
# Who is not hungry leaves a queue to those who are.
TAKE = f"""
{NOW}
local lists = ARGV[3] + 2
for i = lists, #KEYS do
  local item = redis.call('LINDEX', ARGV[1] .. KEYS[i], -1)
  if item then return {{KEYS[i], item}} end
end
local hungry = ARGV[4] ~= '0'
local free = {{}}
for i = 2, lists - 1 do
  if not hungry then redis.call('ZREM', KEYS[i], ARGV[2]) end
  free[i] = hungry or redis.call('ZCOUNT', KEYS[i], '(' .. now, '+inf') == 0
end
for i = lists, #KEYS do
  -- A full server allows this as a first write, and no LMOVE.
  local item = free[2 + (i - lists) % (lists - 2)] and redis.call('RPOP', KEYS[i])
  if item then
    local taken = ARGV[1] .. KEYS[i]
    redis.call('LPUSH', taken, item)
    redis.call('ZADD', KEYS[1], 'NX', now, taken)
    for j = 2, hungry and lists - 1 or 1 do redis.call('ZREM', KEYS[j], ARGV[2]) end
    return {{KEYS[i], item}}
  end
end
if not hungry then return false end
-- For the waiting that follows.
redis.call('ZADD', KEYS[1], 'NX', now, ARGV[1] .. KEYS[lists])
local new = 0
for i = 2, lists - 1 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  new = new + redis.call('ZADD', KEYS[i], now + ARGV[4], ARGV[2])
end
if new > 0 then redis.call('PUBLISH', '{CALLS}', ARGV[2]) end
return false
"""

# KEYS: taken list, index and hash of the unacknowledged. ARGV: item, delivery tag, what to keep.
REGISTER = f"""
{NOW}
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
return 1
"""

# KEYS: takers. ARGV: taken lists.
RETURN = f"""
{PUT_BACK}
{BEGIN_TO_WRITE}
for _, taken in ipairs(ARGV) do put_back(taken) end
"""

# KEYS: takers, index of the unacknowledged. ARGV: visibility timeout (seconds), how many at most.
SWEEP = f"""
{NOW}
{PUT_BACK}
{BEGIN_TO_WRITE}
local latest = now - ARGV[1]
for _, taken in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest)) do
  put_back(taken)
  redis.call('ZREM', KEYS[1], taken)
end
return redis.call('ZREVRANGEBYSCORE', KEYS[2], latest, '-inf', 'LIMIT', 0, ARGV[2])
"""

# KEYS: index and hash of the unacknowledged, destination. ARGV: delivery tag, message, how long
# (seconds) it must not have been renewed, or 0.
RESTORE = f"""
{NOW}
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] ~= '0' and score and tonumber(score) > now - ARGV[3] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
"""
