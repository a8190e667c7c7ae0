"""What a check gets to work with, and how checks are declared and counted."""

import os
import re
import time
import traceback

from cluster import CLUSTERS, Cluster
from peer import Peer, PeerError

# First bytes of keys, one in each of the eight regions that the servers begin with, the last one left free: tikv-client
# 0.4.0 scans raw from the start again when a range ends in the last region.
SPREAD = [0x05, 0x25, 0x45, 0x65, 0x85, 0xA5, 0xC5]
SCAN_END = b"\xd0"
BOUNDARIES = [bytes([first]) for first in range(0x20, 0x100, 0x20)]


def spread_keys(tag, count):
    """`count` keys over all regions, ascending within each first byte; `tag` keeps checks apart."""
    return sorted(bytes([SPREAD[i % len(SPREAD)]]) + b"%s/%04d" % (tag.encode(), i) for i in range(count))


class Skip(Exception):
    """The server or the library cannot do what the check needs."""


def require(condition, message):
    if not condition:
        raise AssertionError(message)


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {_short(got)}, wanted {_short(wanted)}")


def _short(value):
    text = repr(value)
    return text if len(text) < 600 else text[:600] + "…"


def refused(kind, what, *args, **kwargs):
    """Asserts that the call fails with this kind of error."""
    try:
        what(*args, **kwargs)
    except PeerError as error:
        equal(error.kind, kind, f"the kind of “{error}”")
        return error
    raise AssertionError(f"no error where {kind} was expected")


class Bench:
    """One fresh cluster and one connected peer of each name."""

    def __init__(self, target, peers, settings):
        self._settings = settings
        self._log = open(os.path.join(settings.logs, f"{target}.log"), "a", encoding="utf-8")
        self.cluster: Cluster = CLUSTERS[target](settings.servers[target], self._log)
        self._all = []
        try:
            self.peers = [self.connect(name) for name in peers]
            self._split()
        except BaseException:
            self.close()
            raise

    def _split(self):
        """Makes sure of the region boundaries which the keys count on, by whoever can split."""
        splitter = self.connect("client-go")
        splitter.call("split", keys=BOUNDARIES)
        splitter.quit()

    def connect(self, name):
        peer = Peer(name, self._settings.peers[name], self.cluster.pd, self._log)
        self._all.append(peer)
        peer.call("hello")
        return peer

    def close(self):
        for peer in self._all:
            peer.quit()
        code = self.cluster.stop()
        self._log.close()
        return code


class Check:
    """A check of one shape: `alone` runs for each peer, `pair` for each ordered pair, `all` once with all peers."""

    def __init__(self, function, shape, group):
        self.name = function.__name__
        self.run = function
        self.shape = shape
        self.group = group

    def cases(self, peers, involving):
        """The peers to run with; only cases with one of `involving`, so that no case runs twice in later rounds."""
        if self.shape == "alone":
            cases = [(peer,) for peer in peers]
        elif self.shape == "pair":
            cases = [(one, other) for one in peers for other in peers if one is not other]
        else:
            cases = [tuple(peers)]
        return [case for case in cases if any(peer.name in involving for peer in case)]


CHECKS = []


def check(shape, group):
    """Declares a check. All checks of a group share one fresh cluster."""

    def register(function):
        CHECKS.append(Check(function, shape, group))
        return function

    return register


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.skipped = 0

    def line(self, verdict, name, detail=""):
        print(f"{verdict:4} {name}" + (f": {detail}" if detail else ""), flush=True)

    def run(self, name, function):
        began = time.monotonic()
        try:
            function()
        except Skip as why:
            self.skipped += 1
            self.line("skip", name, str(why))
        except BaseException as error:
            self.failed += 1
            self.line("FAIL", name, f"{type(error).__name__}: {error}")
            if not isinstance(error, (AssertionError, PeerError)):
                traceback.print_exc()
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            self.passed += 1
            self.line("ok", name, f"{time.monotonic() - began:.1f} s")

    def fail(self, name, why):
        self.failed += 1
        self.line("FAIL", name, why)


def matches(pattern, name):
    return pattern is None or re.search(pattern, name) is not None
