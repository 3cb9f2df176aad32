"""What the transport has Redis do, each script one step for all to see.

All times are the server's, in seconds: the clocks of workers may differ.
"""

from workers.ledger.servers import DIGESTS, NOW, WARM

# Names of taken lists, by the server's time (seconds) at which each was renewed last.
TAKERS = "comfyfleet:takers"

# Of a queue: channels whose server has nothing to do, by the server's time (seconds) until which
# that holds.
HUNGRY = "comfyfleet:hungry:"

# Where a channel is announced that has become hungry.
CALLS = "comfyfleet:calls"

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

# Lanes of a queue: their lists but for the priority's suffix, what is known of each by its id, and
# when each was served last, or else when the first job came.
_LANE = "comfyfleet:lane:"
LANES = "comfyfleet:lanes:"
_SERVED = ":served"

# Of servers that execute something, how many times longer they leave a lane to those that have its
# models loaded than others leave it. To load models costs little against jobs that take so long.
PATIENT = 10

# Lanes are told apart by who wants them: at first those of the models that are loaded here, what
# has waited for too long, and what nobody can run any more, for it to be told so; who has nothing
# to do, then what nobody has loaded, or nobody has served for long; and after the queue itself what
# waits for others in such numbers that it pays to load the models once more.
_LANES_OF = f"""
local function warm_digests()
  local warm = {{}}
  for _, one in ipairs(redis.call('ZRANGE', '{WARM}', '(' .. now, '+inf', 'BYSCORE')) do
    local models, digest = string.match(one, '^(%S*) (%S*) ')
    if models then
      warm[models] = warm[models] or {{}}
      table.insert(warm[models], digest)
    end
  end
  return warm
end
local function live_digests()
  return redis.call('ZRANGE', '{DIGESTS}', '(' .. now, '+inf', 'BYSCORE')
end
local function lanes_of(queue, warm, live, own)
  local key, found = '{LANES}' .. queue, {{}}
  local all = redis.call('HGETALL', key)
  for k = 1, #all, 2 do
    local told = cjson.decode(all[k + 1])
    local unable = {{}}
    for _, digest in ipairs(told.unable) do unable[digest] = true end
    local places = 0
    for _, digest in ipairs(warm[told.models] or {{}}) do
      if not unable[digest] then places = places + 1 end
    end
    local dead = true
    -- Of oneself one knows: whose server says nothing waits for no such server.
    for _, one in ipairs(live) do dead = dead and (unable[one] or one == own) end
    local since = redis.call('ZSCORE', key .. '{_SERVED}', all[k])
    table.insert(found, {{id = all[k], list = '{_LANE}' .. queue .. ':' .. all[k],
      told = all[k + 1], models = told.models, unable = unable, worth = told.worth,
      places = places, dead = dead, waited = now - (since or now)}})
  end
  table.sort(found, function(a, b)
    if a.waited ~= b.waited then return a.waited > b.waited end
    return a.id < b.id
  end)
  return found
end
"""

# KEYS: takers, the hungry of each queue, then the lists to take from, the most urgent first, of
# each level one a queue in the same order. ARGV: how taken lists begin, this channel among the
# hungry, the number of queues, for how long (seconds) it is hungry if it finds nothing, or 0; the
# digest of what its server can do, what that has loaded, for how long (seconds) a job waits for
# servers that have its models loaded, and in how many seconds servers that were there before must
# have come back.
# What has been taken before, with a reply that got lost or a failed registration, comes first.
# Who is not hungry leaves a queue to those who are.
# Answers with list and item, and if it came from a lane with that and what is known of it.
TAKE = f"""
{NOW}
{_LANES_OF}
local lists = ARGV[3] + 2
for i = lists, #KEYS do
  local item = redis.call('LINDEX', ARGV[1] .. KEYS[i], -1)
  if item then return {{KEYS[i], item}} end
end
local hungry = ARGV[4] ~= '0'
local digest, loaded, patience = ARGV[5], ARGV[6], tonumber(ARGV[7])
local complete = tonumber(ARGV[8]) <= 0
local warm, live, queues = warm_digests(), live_digests(), {{}}
for i = 2, lists - 1 do
  if not hungry then redis.call('ZREM', KEYS[i], ARGV[2]) end
  local name = string.sub(KEYS[i], {len(HUNGRY) + 1})
  queues[i] = {{name = name, lanes = lanes_of(name, warm, live, digest),
    free = hungry or redis.call('ZCOUNT', KEYS[i], '(' .. now, '+inf') == 0}}
end
local function length(queue, lane)
  local sum = 0
  for i = lists, #KEYS do
    if queues[2 + (i - lists) % (lists - 2)] == queue then
      sum = sum + redis.call('LLEN', lane.list .. string.sub(KEYS[i], #queue.name + 1))
    end
  end
  return sum
end
local function forgotten(queue, lane)
  if length(queue, lane) > 0 then return false end
  redis.call('HDEL', '{LANES}' .. queue.name, lane.id)
  redis.call('ZREM', '{LANES}' .. queue.name .. '{_SERVED}', lane.id)
  return true
end
local function able(lane)
  -- Who does not know its server leaves jobs that not every server can run to those who do.
  return not lane.unable[digest] and (digest ~= '' or next(lane.unable) == nil)
end
local function first(lane)
  if not able(lane) then return lane.dead and complete end
  return lane.models == '' or lane.models == loaded
    or lane.waited > patience * (lane.places == 0 and 1 or {PATIENT})
end
local function neglected(lane)
  return hungry and able(lane) and (lane.places == 0 or lane.waited > patience)
end
local function worth_it(lane, queue)
  return hungry and able(lane) and length(queue, lane) >= lane.worth * lane.places
end
local function take(i, from, lane)
  -- A full server allows this as a first write, and no LMOVE.
  local item = redis.call('RPOP', from)
  if not item then return end
  local taken = ARGV[1] .. KEYS[i]
  redis.call('LPUSH', taken, item)
  redis.call('ZADD', KEYS[1], 'NX', now, taken)
  for j = 2, hungry and lists - 1 or 1 do redis.call('ZREM', KEYS[j], ARGV[2]) end
  return {{KEYS[i], item, lane and lane.id, lane and lane.told}}
end
local function take_from_lanes(i, queue, wanted)
  for _, lane in ipairs(queue.lanes) do
    local from = lane.list .. string.sub(KEYS[i], #queue.name + 1)
    local found = wanted(lane, queue) and take(i, from, lane)
    if found then
      -- A job that comes later has not waited since now.
      if not forgotten(queue, lane) then
        redis.call('ZADD', '{LANES}' .. queue.name .. '{_SERVED}', now, lane.id)
      end
      return found
    end
  end
end
for i = lists, #KEYS do
  local queue = queues[2 + (i - lists) % (lists - 2)]
  local found = take_from_lanes(i, queue, first) or take_from_lanes(i, queue, neglected)
    or (queue.free and take(i, KEYS[i])) or take_from_lanes(i, queue, worth_it)
  if found then return found end
end
for _, queue in pairs(queues) do
  for _, lane in ipairs(queue.lanes) do forgotten(queue, lane) end
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

# KEYS: index and hash of the unacknowledged, a list of the lane. ARGV: delivery tag, message,
# queue, id of the lane, what is known of it, 1 if the message is to be the next one.
MOVE = f"""
{NOW}
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HSET', '{LANES}' .. ARGV[3], ARGV[4], ARGV[5])
redis.call('ZADD', '{LANES}' .. ARGV[3] .. '{_SERVED}', 'NX', now, ARGV[4])
redis.call(ARGV[6] == '1' and 'RPUSH' or 'LPUSH', KEYS[3], ARGV[2])
return 1
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


def lane_name(queue: str, lane_id: str) -> str:
    """The name of a lane's lists, but for the suffix of each priority."""
    return f"{_LANE}{queue}:{lane_id}"
