"""Child processes that speak in lines. Peers and servers end with their stdin, so that they never outlive this process."""

import queue
import subprocess
import threading

_running = []  # every child started and not yet waited for


class Ended(Exception):
    """The process ended, or closed its output."""


class Silent(Exception):
    """No line came in time: what the checks call a hang."""


class Child:
    """One process. Lines from its stdout go to `on_line`, or are kept for `line()`."""

    def __init__(self, command, log, on_line=None):
        self.name = command[0].rsplit("/", 1)[-1]
        self._lines = queue.Queue()
        self._on_line = on_line or self._lines.put
        self._write_lock = threading.Lock()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        )
        _running.append(self)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._on_line(line.rstrip("\n"))
        self._on_line(None)

    def send(self, line):
        with self._write_lock:
            try:
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            except (BrokenPipeError, ValueError) as error:
                raise Ended(f"{self.name} has ended") from error

    def line(self, seconds):
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise Silent(f"{self.name} said nothing for {seconds} s") from None
        if line is None:
            self._lines.put(None)
            raise Ended(f"{self.name} has ended")
        return line

    def kill(self):
        """kill -9, and wait."""
        self.process.kill()
        self._reap(10)

    def stop(self):
        """SIGTERM, some seconds of patience, then kill -9. Returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self._reap(10)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def wait(self, seconds):
        try:
            return self._reap(seconds)
        except subprocess.TimeoutExpired:
            raise Silent(f"{self.name} did not end within {seconds} s") from None

    def _reap(self, seconds):
        code = self.process.wait(timeout=seconds)
        if self in _running:
            _running.remove(self)
        self._reader.join(timeout=1)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except (BrokenPipeError, ValueError):
                pass
        return code


def kill_all():
    """The last broom: whatever a broken check left running."""
    for child in list(_running):
        child.kill()
