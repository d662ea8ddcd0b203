-- What `balance.py` says, for several keys at once and on the server's clock.
-- KEYS: short (since when somebody looks for places of a key), nodes, born, then the hash of each key: node -> "quota used told".
-- ARGV: node, lease in milliseconds, then keep, need, used, extra, most of each key.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, lease = ARGV[1], tonumber(ARGV[2])
local alive, nodes = {}, 0
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now, '+inf')) do
  alive[node] = true
  nodes = nodes + 1
end
local settled = now - (tonumber(redis.call('GET', KEYS[3])) or now) >= lease
local answer = {}
for place = 4, #KEYS do
  local from = 3 + (place - 4) * 5
  local keep, need, used = tonumber(ARGV[from]), tonumber(ARGV[from + 1]), tonumber(ARGV[from + 2])
  local extra, most = tonumber(ARGV[from + 3]), tonumber(ARGV[from + 4])
  local held, free, spare = redis.call('HGETALL', KEYS[place]), most, 0
  local since = tonumber(redis.call('ZSCORE', KEYS[1], KEYS[place]))
  if not since or since <= now - 1000 then
    since = now
  end
  for at = 1, #held, 2 do
    if held[at] ~= me then
      if alive[held[at]] then
        local quota, taken, told = string.match(held[at + 1], '^(%d+) (%d+) (%d+)$')
        free = free - quota
        -- Of one who has told nothing since then nobody knows that it uses all of its places.
        spare = spare + math.max(quota - taken, tonumber(told) > since and 0 or 1)
      else
        redis.call('HDEL', KEYS[place], held[at])
      end
    end
  end
  local quota = keep
  if settled then
    local wanted = free
    if need <= free then
      wanted = need + math.min(extra, math.floor((free - need) / math.max(nodes, 1)))
    end
    quota = math.max(keep, wanted)
  end
  if quota > 0 then
    redis.call('HSET', KEYS[place], me, string.format('%d %d %d', quota, math.min(used, quota), now))
    redis.call('EXPIRE', KEYS[place], 86400)
  else
    redis.call('HDEL', KEYS[place], me)
  end
  if need > quota then
    redis.call('ZADD', KEYS[1], since, KEYS[place])
  end
  answer[#answer + 1] = quota
  answer[#answer + 1] = spare
end
return answer
