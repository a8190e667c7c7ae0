"""The clusters under test: who starts them, and what can be done to them."""

import os
import shutil
import signal
import tempfile

from process import Child, Ended, Silent

START_SECONDS = 60
STORES = 3
REGIONS = 8


class AdminError(Exception):
    """The server refused an admin command."""


class Cluster:
    """A running server. `durable`: its data outlive kill -9. `clean_exits`: exit codes after SIGTERM."""

    name = ""
    durable = False
    clean_exits = (0, -signal.SIGTERM)

    def __init__(self, binary, log):
        self._binary = binary
        self._log = log
        self._commands = None
        self.pd = None
        self._start("127.0.0.1:0")

    def command(self, pd_addr):
        raise NotImplementedError

    def _start(self, pd_addr):
        self.child = Child(self.command(pd_addr), self._log)
        while True:
            words = self.child.line(START_SECONDS).split()
            if len(words) == 2 and words[0] == "pd":
                self.pd = words[1]
                return

    def admin(self, *words, seconds=10):
        self.child.send(" ".join(str(word) for word in words))
        answer = self.child.line(seconds).split()
        if not answer or answer[0] != "ok":
            raise AdminError(" ".join(answer))
        return answer[1:]

    def can(self, *commands):
        """Whether the server has these admin commands."""
        if self._commands is None:
            try:
                self._commands = self.admin("help", seconds=2)
            except (AdminError, Ended, Silent):
                self._commands = []
        return all(command in self._commands for command in commands)

    def regions(self):
        """(id, leader's store) of each region in the order of keys."""
        found = []
        for word in self.admin("regions"):
            parts = word.split(":")
            found.append((int(parts[0]), int(parts[4])))
        return found

    def kill(self):
        self.child.kill()

    def restart(self):
        """Starts again at the same address after `kill`."""
        self._start(self.pd)

    def stop(self):
        return self.child.stop()


class Unistore(Cluster):
    """TiDB's unistore behind gRPC (go/cmd/unistore)."""

    name = "unistore"
    durable = True
    clean_exits = (0,)

    def __init__(self, binary, log):
        self._data = tempfile.mkdtemp(prefix="interop-data-")
        super().__init__(binary, log)

    def command(self, pd_addr):
        return [self._binary, "--pd-addr", pd_addr, "--stores", str(STORES), "--regions", str(REGIONS),
                "--data", self._data, "--exit-on-eof", "--lifetime", "1h"]

    def stop(self):
        code = super().stop()
        shutil.rmtree(self._data, ignore_errors=True)
        return code


class TikvSim(Cluster):
    """Our simulated cluster, served on TCP. Its data live in memory."""

    name = "tikv-sim"

    def command(self, pd_addr):
        return [self._binary, "serve", "--pd-addr", pd_addr, "--stores", str(STORES), "--regions", str(REGIONS),
                "--exit-on-eof", "--lifetime", "1h"]


CLUSTERS = {kind.name: kind for kind in (Unistore, TikvSim)}


def available(binary):
    return os.access(binary, os.X_OK)
