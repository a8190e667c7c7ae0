"""Transactions of all modes: what one client commits in any of them the other reads, and their locks keep each other out."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench import SPREAD, check, equal, refused, require, spread_keys
from peer import PeerError

# The options of each mode, and what the library should say, if it says anything.
MODES = {
    "2pc": ({}, "2pc"),
    "async commit": ({"async_commit": True}, "async"),
    "one phase": ({"one_phase": True}, "1pc"),
    "pessimistic": ({"pessimistic": True}, "2pc"),
    "pessimistic, async commit": ({"pessimistic": True, "async_commit": True}, "async"),
    "pessimistic, one phase": ({"pessimistic": True, "one_phase": True}, "1pc"),
}


def tag(mode, *peers):
    return "-".join([mode.replace(", ", "+").replace(" ", "_"), *(peer.name for peer in peers)])


def begin(peer, mode, keys):
    """A transaction of this mode; a pessimistic one has locked the keys."""
    options, _ = MODES[mode]
    txn = peer.begin(**options)
    if options.get("pessimistic"):
        txn.lock(keys)
    return txn


def keys_of(mode, *peers):
    """Keys in all regions; in one, where the mode can commit in one only."""
    name = tag(mode, *peers)
    if "one phase" in mode:
        return [bytes([SPREAD[1]]) + f"{name}/{number}".encode() for number in range(3)]
    return spread_keys(name, 10)


def wrote(peer, txn, mode, keys, value):
    for key in keys:
        txn.put(key, value)
    commit_ts, told = txn.commit()
    require(commit_ts > txn.start_ts, f"{mode}: committed at {commit_ts}, begun at {txn.start_ts}")
    if told is not None:
        equal(told, MODES[mode][1], f"{peer.name}, {mode}: how it was decided")
    return commit_ts


@check("pair", "txn")
def each_mode_is_read_by_the_other(bench, writer, reader):
    for mode in MODES:
        keys = keys_of(mode, writer, reader)
        for value in (b"first", b"second"):
            wrote(writer, begin(writer, mode, keys), mode, keys, value)
            txn = reader.begin()
            equal(txn.batch_get(keys), dict.fromkeys(keys, value), f"{mode}: right after the commit")
            txn.rollback()


@check("pair", "txn")
def each_mode_conflicts_with_the_other(bench, first, second):
    for mode in MODES:
        keys = keys_of(mode, second, first)
        loser = second.begin()
        for key in keys:
            loser.put(key, b"loser")
        wrote(first, begin(first, mode, keys), mode, keys, b"winner")
        refused("conflict", loser.commit)
        txn = second.begin()
        equal(set(txn.batch_get(keys).values()), {b"winner"}, f"{mode}: after the conflict")
        txn.rollback()


@check("pair", "txn")
def a_lock_of_one_keeps_the_other_waiting(bench, owner, waiter):
    key = spread_keys(tag("lock", owner, waiter), 1)[0]
    held = begin(owner, "pessimistic", [key])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(write_under_lock, waiter, key, b"later")
        # It waits in any case: that it may be about to ask only makes the check weaker.
        time.sleep(0.5)
        require(not waiting.done(), "the lock was not waited for")
        commit_ts = wrote(owner, held, "pessimistic", [key], b"earlier")
        require(waiting.result() > commit_ts, "the second has committed before the first")
    txn = owner.begin()
    equal(txn.get(key), b"later", "after both")
    txn.rollback()


def write_under_lock(peer, key, value):
    """Runs again after conflicts: not all libraries take a newer timestamp by themselves when they have waited."""
    for _ in range(20):
        try:
            return wrote(peer, begin(peer, "pessimistic", [key]), "pessimistic", [key], value)
        except PeerError as error:
            if error.kind != "conflict":
                raise
    raise AssertionError("twenty conflicts in a row under a lock")
