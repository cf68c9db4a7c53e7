-- KEYS: buckets. ARGV: per key its rate and its burst, then per want how many (negative: given back),
-- how many keys it is under, and their places. Answers the time in microseconds and per want how many
-- are granted and the microseconds until one more would be. All numbers are integers below 2^53, so
-- that Lua's floats hold them exactly.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local level, rate, cap, before, stored = {}, {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  rate[i] = tonumber(ARGV[2 * i - 1])
  cap[i] = ARGV[2 * i] * 1000000
  level[i] = 0
  stored[i] = redis.call('GET', key)
  local was, at = string.match(stored[i] or '', '^(%d+) (%d+)$')
  if was then
    was, at = tonumber(was), tonumber(at)
    level[i] = math.min(cap[i], math.max(0, was - math.max(0, now - at) * rate[i]))
  end
  before[i] = level[i]
  -- These are written even if nothing is charged: a level that a lowered burst has cut must drain from
  -- now on, and one of a clock that went back would not drain until it has caught up.
  if was and (was > cap[i] or at > now) then before[i] = -1 end
end
local answer = {now}
local a = 2 * #KEYS + 1
while a <= #ARGV do
  local n, first, last = tonumber(ARGV[a]), a + 2, a + 1 + ARGV[a + 1]
  local granted, wait = n, 0
  for j = first, last do
    local i = tonumber(ARGV[j])
    granted = math.min(granted, math.floor((cap[i] - level[i]) / 1000000))
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
    redis.call('SET', key, string.format('%.0f %.0f', level[i], now), 'PX', string.format('%.0f', drains))
  end
end
return answer
