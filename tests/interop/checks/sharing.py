"""Two clients: what one writes the other reads, conflicts, snapshots."""

from bench import SCAN_END, check, equal, refused, require, spread_keys


def tag(*peers):
    return "-".join(peer.name for peer in peers)


@check("pair", "raw")
def raw_written_by_one_is_read_by_the_other(bench, writer, reader):
    pairs = [(key, b"raw " + key) for key in spread_keys("share-" + tag(writer, reader), 70)]
    keys = [key for key, _ in pairs]
    writer.call("raw_batch_put", pairs=pairs[:35])
    for key, value in pairs[35:]:
        writer.call("raw_put", key=key, value=value)
    equal(sorted(reader.call("raw_batch_get", keys=keys)["pairs"]), pairs, "a batch get")
    equal([reader.call("raw_get", key=key)["value"] for key in keys[::7]], [v for _, v in pairs[::7]], "single gets")
    seen = reader.call("raw_scan", start=b"\x01", end=SCAN_END, limit=10_000)["pairs"]
    equal([pair for pair in seen if pair[0] in set(keys)], pairs, "a scan")
    writer.call("raw_batch_delete", keys=keys)
    equal(reader.call("raw_batch_get", keys=keys)["pairs"], [], "after the delete")


@check("pair", "txn")
def txn_written_by_one_is_read_by_the_other(bench, writer, reader):
    pairs = [(key, b"txn " + key) for key in spread_keys("share-" + tag(writer, reader), 70)]
    keys = [key for key, _ in pairs]
    txn = writer.begin()
    for key, value in pairs:
        txn.put(key, value)
    txn.commit()
    # Right after the commit: the secondaries may still be locked.
    txn = reader.begin()
    equal(txn.batch_get(keys), dict(pairs), "a batch get")
    equal([txn.get(key) for key in keys[::7]], [value for _, value in pairs[::7]], "single gets")
    seen = txn.scan(b"\x01", SCAN_END, limit=100_000)
    equal([pair for pair in seen if pair[0] in set(keys)], pairs, "a scan")
    for key in keys:
        txn.delete(key)
    txn.commit()
    txn = writer.begin()
    equal(txn.batch_get(keys), {}, "after the other deleted them")
    txn.rollback()


@check("pair", "txn")
def snapshot_does_not_move(bench, writer, reader):
    keys = spread_keys("snapshot-" + tag(writer, reader), 14)
    write(writer, keys, b"old")
    old = reader.begin()
    equal(old.get(keys[0]), b"old", "before")
    write(writer, keys, b"new")
    equal(set(old.batch_get(keys).values()), {b"old"}, "the snapshot after the write")
    old.rollback()
    new = reader.begin()
    equal(set(new.batch_get(keys).values()), {b"new"}, "a later snapshot")
    new.rollback()


def write(peer, keys, value):
    txn = peer.begin()
    for key in keys:
        txn.put(key, value)
    txn.commit()


@check("pair", "txn")
def conflict_is_reported_and_the_retry_commits(bench, first, second):
    keys = spread_keys("conflict-" + tag(first, second), 3)
    write(first, keys, b"0")
    winner, loser = first.begin(), second.begin()
    for txn, value in ((winner, b"1"), (loser, b"2")):
        equal(txn.get(keys[0]), b"0", "before either")
        for key in keys:
            txn.put(key, value)
    winner.commit()
    refused("conflict", loser.commit)
    equal(set(read(first, keys).values()), {b"1"}, "after the conflict")
    write(second, keys, b"2")
    equal(set(read(first, keys).values()), {b"2"}, "after the retry")


def read(peer, keys):
    txn = peer.begin()
    values = txn.batch_get(keys)
    txn.rollback()
    return values


@check("all", "txn")
def timestamps_rise_across_clients(bench, *peers):
    last = 0
    for _ in range(20):
        for peer in peers:
            now = peer.call("tso")["ts"]
            require(now > last, f"{peer} got {now} after {last}")
            last = now
