"""Money: 16 workers of all clients at once move it between 100 accounts; no snapshot may find more or less."""

import random
import threading

from bench import Skip, check, equal, require, spread_keys
from peer import PeerError

ACCOUNTS = 100
WORKERS = 16
BALANCE = 100
RUN_MS = 6_000


def open_accounts(peer, tag):
    keys = spread_keys(tag, ACCOUNTS)
    txn = peer.begin()
    for key in keys:
        txn.put(key, b"%d" % BALANCE)
    txn.commit()
    return keys


# tikv-client 0.4.0 hands a reader the error when it meets a lock whose primary is not written yet; others try again.
READS_MAY_FAIL = {"tikv-client": "conflict"}


class Auditor(threading.Thread):
    """Sums all accounts at one snapshot after the other, until told to stop."""

    def __init__(self, peer, keys):
        super().__init__(daemon=True)
        self._peer, self._keys = peer, keys
        self._told_to_stop = threading.Event()
        self.snapshots = 0
        self.fault = None

    def run(self):
        while not self._told_to_stop.is_set() and self.fault is None:
            try:
                answer = self._peer.call("snapshot_sum", keys=self._keys)
            except PeerError as error:
                if error.kind != READS_MAY_FAIL.get(self._peer.name):
                    self.fault = str(error)
                continue
            except Exception as error:  # a thread must not lose what went wrong
                self.fault = repr(error)
                continue
            if (answer["count"], answer["sum"]) != (ACCOUNTS, ACCOUNTS * BALANCE):
                self.fault = f"{self._peer} at {answer['ts']}: {answer['count']} accounts hold {answer['sum']}"
            self.snapshots += 1

    def finish(self):
        self._told_to_stop.set()
        self.join(timeout=90)
        require(not self.is_alive(), f"the auditor of {self._peer} hangs")
        require(self.fault is None, f"the auditor of {self._peer}: {self.fault}")
        require(self.snapshots > 0, f"the auditor of {self._peer} saw no snapshot")


def transfers(bench, peers, keys, disturb=None):
    """Runs the workers and auditors of all peers; `disturb(step)` is called meanwhile. Returns each peer's tally."""
    auditors = [Auditor(peer, keys) for peer in peers]
    for auditor in auditors:
        auditor.start()
    shares = [WORKERS // len(peers) + (i < WORKERS % len(peers)) for i in range(len(peers))]
    futures = [
        peer.start("bank", keys=keys, workers=share, transfers=1_000_000, max_ms=RUN_MS, seed=1 + 100 * i)
        for i, (peer, share) in enumerate(zip(peers, shares))
    ]
    step = 0
    while disturb and not all(future.done() for future in futures):
        disturb(step)
        step += 1
    tallies = [peer.finish("bank", future, RUN_MS + 30_000) for peer, future in zip(peers, futures)]
    for auditor in auditors:
        auditor.finish()
    return tallies


def judge(peers, keys, tallies):
    for peer, tally in zip(peers, tallies):
        require(tally["committed"] > 0, f"{peer} committed nothing: {tally}")
        equal(tally["errors"], {}, f"the errors of {peer}")
    for peer in peers:
        equal(peer.call("snapshot_sum", keys=keys)["sum"], ACCOUNTS * BALANCE, f"the sum in the end, by {peer}")


@check("all", "bank")
def money_is_constant_at_every_snapshot(bench, *peers):
    keys = open_accounts(peers[0], "bank")
    tallies = transfers(bench, peers, keys)
    judge(peers, keys, tallies)


@check("all", "bank-moves")
def money_is_constant_while_regions_split_and_leaders_move(bench, *peers):
    if not bench.cluster.can("regions", "split", "transfer-leader"):
        raise Skip("the server has no admin command to split and to move leaders")
    keys = open_accounts(peers[0], "moves")
    dice = random.Random(1)
    cuts = dice.sample(keys[1:], 40)
    pause = threading.Event()

    def disturb(step):
        if step < len(cuts):
            bench.cluster.admin("split", cuts[step].hex())
        region, leader = dice.choice(bench.cluster.regions())
        bench.cluster.admin("transfer-leader", region, leader % 3 + 1)
        pause.wait(0.15)

    tallies = transfers(bench, peers, keys, disturb)
    require(len(bench.cluster.regions()) > 20, "too few regions were split")
    judge(peers, keys, tallies)
