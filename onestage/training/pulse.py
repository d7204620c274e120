"""Whether the processes of other ranks live: what they cannot say, and messages notice late.

A process that is killed leaves no words. One that is stopped, or whose machine is gone, does not even
end its connections, and messages wait for it for ten to thirty minutes. So each rank holds a connection
from the rank behind it, of which two systems know, and not two programs, whether its other end is there:
a process that is long at something and answers nobody is not taken for a dead one. Those of one machine
also see each other in its list of processes.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

SILENT = 20
"""Seconds for which a machine does not answer, or looks at which a process is found stopped."""
MET = 5.0
"""Seconds that a rank has to take up a connection."""
PROBES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": SILENT // 5 - 1}
SILENCE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
GONE = "ended without a word (killed, or out of memory)"
CLOSED = b"\n"
"""What is sent where nothing more is to be watched; words end with it."""


class Pulse:
    """The connections of one rank, and what it knows of its neighbours. Made on all ranks together, and
    used by one thread, but for `tell`."""

    def __init__(self, store: Any, rank: int, ranks: int, near: Iterable[int]) -> None:
        """`store`: torch's, of this run; `near`: ranks that may be on this machine."""
        self.before = (rank - 1) % ranks
        self.stopped, self.heard = Counter[int](), b""
        self.told: socket.socket | None = None
        """To the rank behind this one."""
        self.line: socket.socket | None = None
        """To the one before."""
        family, host = _facing(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        with socket.create_server(("", 0), family=family) as server:
            server.settimeout(MET)
            me = [host, server.getsockname()[1], os.getpid(), *_state(os.getpid())[1:], _place()]
            store.set(f"process{rank}", json.dumps([*me, socket.gethostname()]))
            known = {
                one: json.loads(store.get(f"process{one}"))
                for one in sorted({self.before, *near} - {rank})
            }
            self.name = {one: f"{it[2]} on {it[-1]}" for one, it in known.items()}
            self.near = {one: it[2:4] for one, it in known.items() if it[4] == me[4] and it[4]}
            with suppress(OSError):  # machines that cannot reach each other so: not watched
                self._meet(server, rank, known[self.before])

    def _meet(self, server: socket.socket, rank: int, before: list[Any]) -> None:
        line = socket.create_connection((before[0], before[1]), timeout=MET)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in PROBES.items():
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with suppress(OSError):  # nobody comes from the rank behind
            self.told, _ = server.accept()
            self.told.sendall(b"%d\n" % rank)
        # A name may stand for another machine elsewhere: it is that rank, or is not listened to.
        said = b""
        while not said.endswith(b"\n"):
            got = line.recv(1)
            if not got:
                return
            said += got
        if said == b"%d\n" % self.before:
            self.line = line

    def look(self, seconds: float) -> str:
        """What has become of another rank, in words; empty where nothing has for so long."""
        for rank, (pid, begun) in self.near.items():
            state, *then = _state(pid)
            if then != [begun] or state in "ZX":
                return self._of(rank, GONE)
            self.stopped[rank] = self.stopped[rank] + 1 if state == "T" else 0
            if self.stopped[rank] >= SILENT:
                why = f"has been stopped (SIGSTOP) for {SILENT} s"
                return self._of(rank, why)
        if self.line:
            return self._listen(self.line, seconds)
        time.sleep(seconds)
        return ""

    def _listen(self, line: socket.socket, seconds: float) -> str:
        line.settimeout(seconds)
        try:
            got = line.recv(4096)
        except OSError as error:
            if error.errno is None:  # nothing was said
                return ""
            if error.errno in SILENCE:
                why = f"is on a machine that has not answered for {SILENT} s"
                return self._of(self.before, why)
            got = b""
        self.heard += got
        if got and CLOSED not in self.heard:
            return ""
        self.line = None
        line.close()
        words = self.heard.partition(CLOSED)[0].decode(errors="replace")
        return words if got else self._of(self.before, GONE)

    def _of(self, rank: int, what: str) -> str:
        who = f"rank {rank} has stopped: its process {self.name[rank]}"
        return f"{who} {what}; the same command with --resume goes on"

    def tell(self, words: str = "") -> None:
        """Hand words to the rank behind; without any, let it watch no more."""
        if self.told:
            with suppress(OSError):
                self.told.sendall(words.encode(errors="replace") + CLOSED)

    def close(self) -> None:
        for one in (self.told, self.line):
            if one:
                one.close()


def _facing(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """The address by which this machine reaches another (nothing is sent), as others can use it."""
    family, kind, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as one, suppress(OSError):
        one.connect(where)
        mine: str = one.getsockname()[0]
        if not ipaddress.ip_address(mine).is_loopback:
            return family, mine
    return family, host


def _state(pid: int) -> list[str]:
    """A process's state and when it was begun, as Linux has them; of none, and elsewhere, one word."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", ""]
    return [fields[0], fields[19]]


def _place() -> str:
    """A name for the list of processes in which this one stands; empty where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
