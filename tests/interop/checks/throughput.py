"""Raw gets and puts per second, one client after the other on the same server: the load generators share its machine."""

import bench

CALLERS = (1, 128)
SECONDS = 3
KEYS = 10_000
VALUE_BYTES = 64


def measure(target, names, settings):
    setup = bench.Bench(target, names, settings)
    try:
        keys = bench.spread_keys("load", KEYS)
        value = b"v" * VALUE_BYTES
        for at in range(0, KEYS, 1000):
            setup.peers[0].call("raw_batch_put", pairs=[(key, value) for key in keys[at : at + 1000]])
        print(f"{'peer':18} {'op':4} {'callers':>7} {'ops/s':>9} {'p50 us':>8} {'p99 us':>8}")
        for op in ("get", "put"):
            for callers in CALLERS:
                for peer in setup.peers:
                    fields = {"op": op, "callers": callers, "keys": keys, "value": value, "max_ms": SECONDS * 1000}
                    answer = peer.call("raw_load", **fields)
                    bench.equal(answer["errors"], {}, f"the errors of {peer}")
                    print(f"{peer.name:18} {op:4} {callers:7} {answer['ops'] / SECONDS:9.0f} "
                          f"{answer['p50_us']:8} {answer['p99_us']:8}", flush=True)
    finally:
        setup.close()
