-- Requests for wrk: one POST per workload, with unique workflow keys and 100 counter keys.
-- Usage: wrk -s wrk.lua URL -- WORKLOAD RUN_ID

local workload, run_id
local count = 0
local headers = { ["content-type"] = "application/json" }
local fixed

function init(args)
  workload, run_id = args[1], args[2]
  math.randomseed(1)
  if workload == "empty" then
    fixed = wrk.format("POST", "/Empty/call", headers, '"hi"')
  end
end

function request()
  if fixed then
    return fixed
  end
  count = count + 1
  if workload == "steps" then
    return wrk.format("POST", "/FiveSteps/" .. run_id .. "-" .. count .. "/run", headers, '"hi"')
  elseif workload == "sync-steps" then
    return wrk.format("POST", "/FiveSyncSteps/" .. run_id .. "-" .. count .. "/run_sync", headers, '"hi"')
  end
  return wrk.format("POST", "/Counter/" .. math.random(0, 99) .. "/add", headers, "1")
end

function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "errors": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
