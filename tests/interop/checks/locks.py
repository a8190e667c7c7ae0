"""Locks of killed transactions: left by one client between prewrite and commit, resolved by another."""

from concurrent.futures import ThreadPoolExecutor

from bench import check, equal, spread_keys
from peer import PeerError
from process import Ended

POINTS = ("prewritten", "primary-committed")
WAYS = ("get", "batch_get", "scan", "write")


def leave_locks(bench, victim, point, keys):
    """A process of its own dies; returns what its transaction wanted to write."""
    pairs = [(key, b"of the dead") for key in keys]
    peer = bench.connect(victim)
    try:
        peer.call("die", point=point, pairs=pairs)
    except Ended:
        pass  # killed between the answer and its reading
    code = peer.child.wait(10)
    equal(code, 0, f"{victim} at {point}: its exit code")
    return pairs


def resolve(resolver, way, keys):
    """Meets the locks in one of four ways; returns the values seen after that."""
    txn = resolver.begin()
    if way == "get":
        seen = {key: txn.get(key) for key in keys}
    elif way == "batch_get":
        found = txn.batch_get(keys)
        seen = {key: found.get(key) for key in keys}
    elif way == "scan":
        # The keys' own byte range in each region, so that other cases' locks are not met.
        found = dict(pair for key in keys for pair in txn.scan(key, key + b"\x00", limit=2))
        seen = {key: found.get(key) for key in keys}
    else:
        return overwrite(resolver, keys)
    txn.rollback()
    return seen


def overwrite(resolver, keys):
    """Writes over the locks: prewrite meets them. A conflict is no failure, it means that the dead one won before."""
    for _ in range(5):
        txn = resolver.begin()
        seen = {key: txn.get(key) for key in keys[:1]}
        for key in keys:
            txn.put(key, b"of the living")
        try:
            txn.commit()
        except PeerError as error:
            if error.kind != "conflict":
                raise
            continue
        return seen
    raise AssertionError("five conflicts in a row over the locks of a dead transaction")


@check("pair", "locks")
def locks_of_the_dead_are_resolved(bench, victim, resolver):
    def case(point, way):
        keys = spread_keys(f"{point}-{way}-{victim.name}-{resolver.name}", 10)
        before = resolver.begin()
        for key in keys:
            before.put(key, b"before")
        before.commit()
        # The primary is the largest key: in another region than most of the secondaries.
        leave_locks(bench, victim.name, point, [keys[-1], *keys[:-1]])
        wanted = b"before" if point == "prewritten" else b"of the dead"
        seen = resolve(resolver, way, keys)
        equal(set(seen.values()), {wanted}, f"{point}, met by {way}")
        after = resolver.begin()
        wanted = b"of the living" if way == "write" else wanted
        equal(set(after.batch_get(keys).values()), {wanted}, f"{point}, met by {way}, a later snapshot")
        after.rollback()

    # All at once: each waits for the dead one's time to live.
    with ThreadPoolExecutor(len(POINTS) * len(WAYS)) as pool:
        for future in [pool.submit(case, point, way) for point in POINTS for way in WAYS]:
            future.result()
