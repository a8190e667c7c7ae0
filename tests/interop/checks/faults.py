"""Broken servers: a store that goes and comes back, a whole cluster killed and restarted, while all clients write."""

import threading
import time

from bench import SPREAD, Skip, check, equal, require
from peer import PeerError
from process import Ended

TIMEOUT_MS = 5_000
RECOVERY_SECONDS = 90
KILLS = 2
# One raw and several transactional writers of each peer: the more commits are under way when a server dies, the better.
KINDS = ("raw", "txn1", "txn2", "txn3")
# First bytes that make further keys of a transaction out of its primary: secondaries in other regions.
SECONDARIES = (b"\x25", b"\x65", b"\xa5")


class Writer(threading.Thread):
    """Writes keys of its own one after the other and remembers which were acknowledged.

    Every call must end in time; one that fails must say why. What failed may or may not have been written.
    """

    def __init__(self, peer, kind):
        super().__init__(daemon=True)
        self.peer, self.kind, self.raw = peer, kind, kind == "raw"
        self._told_to_stop = threading.Event()
        self._count = 0
        self.acknowledged = {}
        self.doubtful = {}
        self.errors = []
        self.fault = None

    def run(self):
        while not self._told_to_stop.is_set():
            key = bytes([SPREAD[self._count % len(SPREAD)]]) + b"%s-%s/%06d" % (
                self.peer.name.encode(), self.kind.encode(), self._count)
            value = b"%d" % self._count
            self._count += 1
            try:
                if self.raw:
                    self.peer.call("raw_put", key=key, value=value, timeout_ms=TIMEOUT_MS)
                else:
                    self._commit(key, value)
                self.acknowledged[key] = value
            except PeerError as error:
                self.doubtful[key] = value
                self.errors.append(error)
                if not error.text:
                    self.fault = f"an error without a word: {error}"
                time.sleep(0.05)
            except Exception as error:  # a hang, a dead peer: a thread must not lose it
                self.fault = repr(error)
                return

    def _commit(self, key, value):
        txn = self.peer.call("txn_begin", timeout_ms=TIMEOUT_MS)["txn"]
        for prefix in (b"", *SECONDARIES):
            self.peer.call("txn_put", txn=txn, key=prefix + key, value=value)
        self.peer.call("txn_commit", txn=txn, timeout_ms=TIMEOUT_MS)

    def wait_for(self, count, seconds):
        """Waits until `count` more writes are acknowledged."""
        goal = len(self.acknowledged) + count
        end = time.monotonic() + seconds
        while len(self.acknowledged) < goal and self.fault is None:
            last = f", the last error was: {self.errors[-1]}" if self.errors else ""
            require(time.monotonic() < end, f"{self} has not written {count} keys in {seconds} s{last}")
            time.sleep(0.02)
        require(self.fault is None, f"{self}: {self.fault}")

    def finish(self):
        self._told_to_stop.set()
        self.join(timeout=90)
        require(not self.is_alive(), f"{self} hangs")
        require(self.fault is None, f"{self}: {self.fault}")

    def __str__(self):
        return f"the {self.kind} writer of {self.peer}"


def start_writers(peers):
    writers = [Writer(peer, kind) for peer in peers for kind in KINDS]
    for writer in writers:
        writer.start()
    wait_for_all(writers)
    return writers


def verify(writers, readers, forgetful=None):
    """Every acknowledged write is there, and nothing that nobody wrote.

    `forgetful`: the library whose acknowledged transactions may be missing.
    """
    for writer in writers:
        known = {**writer.acknowledged, **writer.doubtful}
        may_lose = writer.peer.name == forgetful and not writer.raw
        for reader in readers:
            for prefix in (b"",) if writer.raw else (b"", *SECONDARIES):
                keys = [prefix + key for key in known]
                found = read(reader, writer.raw, keys)
                lost = [prefix + key for key, value in writer.acknowledged.items() if found.get(prefix + key) != value]
                equal([] if may_lose else lost, [], f"acknowledged by {writer}, lost to {reader}")
                torn = [prefix + key for key, value in known.items() if found.get(prefix + key, value) != value]
                equal(torn, [], f"never written by {writer}, but seen by {reader}")


def read(reader, raw, keys):
    found = {}
    for at in range(0, len(keys), 500):
        if raw:
            found.update(reader.call("raw_batch_get", keys=keys[at : at + 500])["pairs"])
        else:
            txn = reader.begin()
            found.update(txn.batch_get(keys[at : at + 500]))
            txn.rollback()
    return found


def wait_for_all(writers):
    for writer in writers:
        writer.wait_for(10, RECOVERY_SECONDS)


def finish_all(writers):
    for writer in writers:
        writer.finish()


@check("all", "store-restart")
def store_gone_and_back_loses_nothing(bench, *peers):
    if not bench.cluster.can("stop-store", "start-store"):
        raise Skip("the server has no admin command to stop a store")
    writers = start_writers(peers)
    for store in (1, 2, 3):
        bench.cluster.admin("stop-store", store)
        time.sleep(1)
        bench.cluster.admin("start-store", store)
        wait_for_all(writers)
    finish_all(writers)
    verify(writers, peers)


@check("all", "pd-restart")
def pd_gone_and_back_loses_nothing(bench, *peers):
    if not bench.cluster.can("stop-pd", "start-pd"):
        raise Skip("the server has no admin command to stop PD")
    writers = start_writers(peers)
    bench.cluster.admin("stop-pd")
    time.sleep(2)
    bench.cluster.admin("start-pd")
    wait_for_all(writers)
    finish_all(writers)
    verify(writers, peers)


@check("all", "kill")
def cluster_killed_and_restarted_loses_nothing(bench, *peers):
    writers = start_writers(peers)
    for _ in range(KILLS):
        bench.cluster.kill()
        time.sleep(1)
        bench.cluster.restart()
        if bench.cluster.durable:
            wait_for_all(writers)
        else:
            time.sleep(3)  # without its data it is another cluster: nobody need write there, but nobody may hang or die
    finish_all(writers)
    if bench.cluster.durable:
        # While PD is gone too, tikv-client 0.4 takes a prewrite or commit whose keys it cannot locate for done.
        verify(writers, peers, forgetful="tikv-client")
    # Whoever comes new finds a cluster that works.
    for peer in peers:
        fresh = bench.connect(peer.name)
        txn = fresh.begin()
        txn.put(b"\x45after the restart", peer.name.encode())
        txn.commit()
        fresh.quit()


@check("alone", "gone")
def cluster_gone_for_good_is_a_clear_error(bench, peer):
    bench.cluster.kill()
    for cmd, fields in (("raw_put", {"key": b"\x45k", "value": b"v"}), ("txn_begin", {})):
        began = time.monotonic()
        try:
            peer.call(cmd, timeout_ms=5_000, **fields)
        except PeerError as error:
            require(error.text, f"{cmd}: an error without a word")
        except Ended:
            raise AssertionError(f"{peer} died over {cmd}") from None
        else:
            raise AssertionError(f"{cmd} succeeded without a server")
        require(time.monotonic() - began < 30, f"{cmd} took more than 30 s to fail")
    bench.cluster.restart()
