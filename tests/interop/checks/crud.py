"""Each client alone: raw and transactional calls, and scans over region boundaries."""

from bench import SCAN_END, check, equal, refused, require, spread_keys
from peer import PeerError


def pairs_for(peer, kind, count):
    keys = spread_keys(f"{kind}-{peer.name}", count)
    return [(key, b"value of " + key) for key in keys]


def supported(peer, cmd, **fields):
    """The answer, or None where the library has no such call."""
    try:
        return peer.call(cmd, **fields)
    except PeerError as error:
        if error.kind == "unsupported":
            return None
        raise


@check("alone", "raw")
def raw_put_get_and_delete(bench, peer):
    for key, value in pairs_for(peer, "one", 7):
        equal(peer.call("raw_get", key=key)["value"], None, "a key never written")
        peer.call("raw_put", key=key, value=value)
        equal(peer.call("raw_get", key=key)["value"], value, "what was put")
        peer.call("raw_put", key=key, value=b"again")
        equal(peer.call("raw_get", key=key)["value"], b"again", "what was put over it")
        peer.call("raw_delete", key=key)
        equal(peer.call("raw_get", key=key)["value"], None, "a deleted key")


@check("alone", "raw")
def raw_batches_over_all_regions(bench, peer):
    pairs = pairs_for(peer, "batch", 70)
    keys = [key for key, _ in pairs]
    peer.call("raw_batch_put", pairs=pairs)
    equal(sorted(peer.call("raw_batch_get", keys=keys + [b"\x45absent"])["pairs"]), pairs, "a batch over all regions")
    peer.call("raw_batch_delete", keys=keys[::2])
    equal(sorted(peer.call("raw_batch_get", keys=keys)["pairs"]), pairs[1::2], "after every other was deleted")
    peer.call("raw_batch_delete", keys=keys)


@check("alone", "raw-scan")
def raw_scan_over_region_boundaries(bench, peer):
    pairs = pairs_for(peer, "scan", 70)
    peer.call("raw_batch_put", pairs=pairs)
    try:
        equal(peer.call("raw_scan", start=b"\x01", end=SCAN_END, limit=1000)["pairs"], pairs, "a scan of all")
        equal(peer.call("raw_scan", start=pairs[5][0], end=SCAN_END, limit=33)["pairs"], pairs[5:38], "a limited scan")
        equal(peer.call("raw_scan", start=pairs[5][0], end=pairs[40][0], limit=1000)["pairs"], pairs[5:40], "a bounded scan")
        unbounded = supported(peer, "raw_scan", start=b"", end=b"", limit=1000)
        require(unbounded is None or unbounded["pairs"] == pairs, f"an unbounded scan: {unbounded}")
        backward = supported(peer, "raw_reverse_scan", start=pairs[5][0], end=pairs[60][0], limit=50)
        require(backward is None or backward["pairs"] == pairs[59:9:-1], f"a reverse scan: {backward}")
    finally:
        peer.call("raw_delete_range", start=b"\x01", end=SCAN_END)
    equal(peer.call("raw_scan", start=b"\x01", end=SCAN_END, limit=1000)["pairs"], [], "after all was deleted")


@check("alone", "raw")
def raw_delete_range_keeps_what_is_outside(bench, peer):
    pairs = pairs_for(peer, "range", 35)
    keys = [key for key, _ in pairs]
    peer.call("raw_batch_put", pairs=pairs)
    peer.call("raw_delete_range", start=keys[10], end=keys[30])
    equal(sorted(peer.call("raw_batch_get", keys=keys)["pairs"]), pairs[:10] + pairs[30:], "outside of the range")
    peer.call("raw_batch_delete", keys=keys)


@check("alone", "raw")
def raw_compare_and_swap(bench, peer):
    key = spread_keys(f"cas-{peer.name}", 1)[0]
    first = supported(peer, "raw_cas", key=key, expected=None, value=b"a")
    if first is None:
        return
    equal((first["swapped"], first["previous"]), (True, None), "a swap of what does not exist")
    wrong = peer.call("raw_cas", key=key, expected=b"b", value=b"c")
    equal((wrong["swapped"], wrong["previous"]), (False, b"a"), "a swap of something else")
    right = peer.call("raw_cas", key=key, expected=b"a", value=b"d")
    equal((right["swapped"], right["previous"]), (True, b"a"), "a swap of what is there")
    equal(peer.call("raw_get", key=key)["value"], b"d", "what was swapped in")


@check("alone", "txn")
def txn_put_get_and_delete(bench, peer):
    pairs = pairs_for(peer, "txn", 7)
    txn = peer.begin()
    for key, value in pairs:
        equal(txn.get(key), None, "a key never written")
        txn.put(key, value)
        equal(txn.get(key), value, "a read of one's own write")
    commit_ts, _ = txn.commit()
    require(commit_ts > txn.start_ts, "commit_ts is above start_ts")
    txn = peer.begin()
    equal([txn.get(key) for key, _ in pairs], [value for _, value in pairs], "what was committed")
    for key, _ in pairs:
        txn.delete(key)
        equal(txn.get(key), None, "one's own delete")
    txn.commit()
    txn = peer.begin()
    equal(txn.batch_get([key for key, _ in pairs]), {}, "what was deleted")
    txn.rollback()


@check("alone", "txn")
def txn_rolled_back_leaves_nothing(bench, peer):
    pairs = pairs_for(peer, "rollback", 14)
    txn = peer.begin()
    for key, value in pairs:
        txn.put(key, value)
    txn.rollback()
    txn = peer.begin()
    equal(txn.batch_get([key for key, _ in pairs]), {}, "after the rollback")
    txn.rollback()


@check("alone", "txn")
def txn_empty_commits(bench, peer):
    txn = peer.begin()
    txn.get(b"\x45nothing here")
    txn.commit()
    refused("other", txn.get, b"\x45nothing here")


@check("alone", "txn-scan")
def txn_scan_over_region_boundaries(bench, peer):
    pairs = pairs_for(peer, "scan", 70)
    txn = peer.begin()
    for key, value in pairs:
        txn.put(key, value)
    txn.commit()

    txn = peer.begin()
    equal(txn.scan(b"", b""), pairs, "a scan of all")
    equal(txn.scan(pairs[3][0], SCAN_END, limit=44), pairs[3:47], "a limited scan")
    equal(txn.reverse_scan(pairs[5][0], pairs[60][0]), pairs[59:4:-1], "a reverse scan")
    equal(txn.reverse_scan(b"\x01", SCAN_END, limit=20), pairs[:49:-1], "a limited reverse scan")

    # The transaction's own writes lie over the snapshot.
    txn.delete(pairs[10][0])
    txn.put(pairs[20][0], b"mine")
    txn.put(pairs[30][0] + b"+", b"new")
    mine = [*pairs[:10], *pairs[11:20], (pairs[20][0], b"mine"), *pairs[21:31], (pairs[30][0] + b"+", b"new"), *pairs[31:]]
    equal(txn.scan(b"\x01", SCAN_END), mine, "a scan over one's own writes")
    txn.rollback()

    txn = peer.begin()
    for key, _ in pairs:
        txn.delete(key)
    txn.commit()
    txn = peer.begin()
    equal(txn.scan(b"\x01", SCAN_END), [], "after all was deleted")
    txn.rollback()


@check("alone", "txn")
def txn_large_over_all_regions(bench, peer):
    pairs = pairs_for(peer, "large", 2000)
    txn = peer.begin()
    futures = [peer.start("txn_put", txn=txn.handle, key=key, value=value) for key, value in pairs]
    for future in futures:
        peer.finish("txn_put", future)
    txn.commit()
    txn = peer.begin()
    equal(txn.batch_get([key for key, _ in pairs]), dict(pairs), "2000 keys in one transaction")
    txn.rollback()
