"""A peer process: one client library, driven by the JSON lines of PROTOCOL.md."""

import json
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from process import Child, Ended, Silent

# What a peer may take beyond the time it was given, before it counts as hanging.
GRACE_SECONDS = 30


class PeerError(Exception):
    """An answer that is an error."""

    def __init__(self, peer, cmd, error):
        super().__init__(f"{peer}: {cmd}: {error['kind']}: {error['message']}")
        self.kind = error["kind"]
        self.text = error["message"]


class Peer:
    """`call` waits for the answer, `start` returns its future. Fields are those of PROTOCOL.md, keys and values as bytes."""

    def __init__(self, name, command, pd, log):
        self.name = name
        self._waiting = {}
        self._next_id = 0
        self._lock = threading.Lock()
        self._ended = False
        self.child = Child([*command, "--pd", pd], log, self._on_line)

    def __repr__(self):
        return self.name

    def _on_line(self, line):
        if line is None:
            with self._lock:
                self._ended = True
                waiting, self._waiting = self._waiting, {}
            for _, future in waiting.values():
                future.set_exception(Ended(f"{self.name} has ended"))
            return
        answer = json.loads(line)
        with self._lock:
            cmd, future = self._waiting.pop(answer["id"], (None, None))
        if future is None:
            return
        if answer["ok"]:
            future.set_result(_from_wire(answer))
        else:
            future.set_exception(PeerError(self.name, cmd, answer["error"]))

    def start(self, cmd, **fields):
        future = Future()
        with self._lock:
            if self._ended:
                raise Ended(f"{self.name} has ended")
            self._next_id += 1
            request = {"id": self._next_id, "cmd": cmd, **_to_wire(fields)}
            self._waiting[self._next_id] = (cmd, future)
        self.child.send(json.dumps(request))
        return future

    def call(self, cmd, **fields):
        return self.finish(cmd, self.start(cmd, **fields), fields.get("timeout_ms", 30_000) + fields.get("max_ms", 0))

    def finish(self, cmd, future, given_ms=30_000):
        patience = given_ms / 1000 + GRACE_SECONDS
        try:
            return future.result(timeout=patience)
        except FutureTimeout:
            raise Silent(f"{self.name} has not answered {cmd} for {patience:.0f} s: it hangs") from None

    def begin(self, **options):
        return Txn(self, self.call("txn_begin", **options))

    def quit(self):
        try:
            self.start("quit")
            self.child.wait(10)
        except (Ended, Silent):
            self.child.stop()


class Txn:
    """An open transaction of a peer."""

    def __init__(self, peer, answer):
        self.peer = peer
        self.handle = answer["txn"]
        self.start_ts = answer["start_ts"]

    def _call(self, cmd, **fields):
        return self.peer.call(cmd, txn=self.handle, **fields)

    def get(self, key):
        return self._call("txn_get", key=key)["value"]

    def batch_get(self, keys):
        return dict(self._call("txn_batch_get", keys=keys)["pairs"])

    def scan(self, start, end, limit=1000):
        return self._call("txn_scan", start=start, end=end, limit=limit)["pairs"]

    def reverse_scan(self, start, end, limit=1000):
        return self._call("txn_reverse_scan", start=start, end=end, limit=limit)["pairs"]

    def put(self, key, value):
        self._call("txn_put", key=key, value=value)

    def delete(self, key):
        self._call("txn_delete", key=key)

    def lock(self, keys):
        self._call("txn_lock", keys=keys)

    def commit(self):
        """The commit_ts, and the mode if the library tells it."""
        answer = self._call("txn_commit")
        return answer["commit_ts"], answer.get("mode")

    def rollback(self):
        self._call("txn_rollback")


_BYTES = ("key", "value", "expected", "start", "end", "previous")


def _to_wire(fields):
    wire = {}
    for name, value in fields.items():
        if name in _BYTES and value is not None:
            value = value.hex()
        elif name == "keys":
            value = [key.hex() for key in value]
        elif name == "pairs":
            value = [[key.hex(), val.hex()] for key, val in value]
        wire[name] = value
    return wire


def _from_wire(answer):
    for name in _BYTES:
        if answer.get(name) is not None:
            answer[name] = bytes.fromhex(answer[name])
    if "pairs" in answer:
        answer["pairs"] = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in answer["pairs"]]
    return answer
