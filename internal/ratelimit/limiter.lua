-- KEYS: buckets. ARGV: per key its rate and its burst, then per want how many (negative: given back),
-- 1 if all or none, how many keys it is under, and their places. Answers the time in microseconds and per want how many
-- are granted and the microseconds until one more would be. All numbers are integers below 2^53, so
-- that Lua's floats hold them exactly.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local level, rate, cap, name, before, stored = {}, {}, {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  rate[i] = tonumber(ARGV[2 * i - 1])
  cap[i] = ARGV[2 * i] * 1000000
  name[i] = ARGV[2 * i - 1] .. '/' .. ARGV[2 * i]
  level[i] = 0
  stored[i] = redis.call('GET', key)
  local was, at, under = string.match(stored[i] or '', '^(%d+) (%d+) (.*)$')
  if was then
    level[i] = math.max(0, was - math.max(0, now - at) * rate[i])
    if under ~= name[i] then level[i] = math.min(level[i], cap[i]) end
  end
  before[i] = level[i]
  -- These are written even if nothing is charged: a level that a new rate has cut must drain from now
  -- on, and one of a clock that went back would not drain until it has caught up.
  if was and (under ~= name[i] or tonumber(at) > now) then before[i] = -1 end
end
local answer = {now}
local a = 2 * #KEYS + 1
while a <= #ARGV do
  local n, whole, first, last = tonumber(ARGV[a]), ARGV[a + 1] == '1', a + 3, a + 2 + ARGV[a + 2]
  local granted, wait = n, 0
  for j = first, last do
    local i = tonumber(ARGV[j])
    local free = math.max(0, math.floor((cap[i] - level[i]) / 1000000))
    if not whole or free == 0 then granted = math.min(granted, free) end
  end
  for j = first, last do
    local i = tonumber(ARGV[j])
    level[i] = math.max(0, level[i] + granted * 1000000)
    if granted < n then
      wait = math.max(wait, math.ceil((level[i] + 1000000 - cap[i]) / rate[i]))
    end
  end
  answer[#answer + 1] = granted
  answer[#answer + 1] = wait
  a = last + 1
end
for i, key in ipairs(KEYS) do
  if level[i] == 0 then
    if stored[i] then redis.call('DEL', key) end
  elseif level[i] ~= before[i] then
    -- It may go when it has drained: an absent bucket is an empty one.
    local drains = math.floor(level[i] / rate[i] / 1000) + 1
    redis.call('SET', key, string.format('%.0f %.0f %s', level[i], now, name[i]), 'PX', string.format('%.0f', drains))
  end
end
return answer
