-- Tells wrk what to send (argument: how many bytes to upload; none: GET) and prints one line that bench/load.py reads.
function init(args)
    if args[1] then
        wrk.method = "POST"
        wrk.body = string.rep("x", tonumber(args[1]))
    end
end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
