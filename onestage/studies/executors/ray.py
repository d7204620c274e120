"""On a Ray cluster: cells are tasks that take declared cores and GPUs, on whichever node has them.

No shared disk is assumed. A node that is lost costs only the cells that were on it: they are done again
elsewhere. What can never be done is said at once, and not waited for.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from onestage.config import first_line
from onestage.runfolder import code_digest, digest_of, read_json, write_json
from onestage.runfolder.disk import whole_folder
from onestage.studies.cells import Cell
from onestage.studies.executors import Crew, Ended, Executor, Place
from onestage.studies.executors._node import (
    PARTS,
    Errand,
    do_cell,
    extract,
    make_ground,
    packed,
    unpack,
)
from onestage.studies.file import Resources, StudyError
from onestage.studies.run_cell import begin
from onestage.studies.worlds import Ground

LOOK = 5.0
"""Seconds after which, nothing having ended, it is seen whether anything still can."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of gRPC says first, with empty settings (RFC 9113, section 3.4)."""


@dataclass(frozen=True)
class Ray(Executor):
    """Options of `--on '{name: ray, ...}'`."""

    address: str | None = None
    """`HOST:PORT`, or `ray://HOST:PORT` of a Ray client server; default: `RAY_ADDRESS`, or else the
    cluster that this machine is a node of."""
    shared: Path | None = None
    """A folder that all nodes see under this path, in which `--out` lies: cells are then done in place,
    keep their checkpoints when a node is lost, and may keep their models."""
    again: int = Field(default=3, ge=0)
    """How often a cell is done again whose node was lost."""
    wait: float = Field(default=0, ge=0)
    """Seconds to wait for a node that has what a cell takes, as one that an autoscaler may add."""

    @contextmanager
    def opened(self, place: Place) -> Iterator[Crew]:
        ray = _library()
        self._check(place)
        connected = ray.is_initialized()
        if connected:
            _require_same(ray, self.address)
        else:
            _connect(ray, self.address or os.environ.get("RAY_ADDRESS") or "auto")
        try:
            yield Nodes(ray, self, place, self._needs(ray, place.resources, place.say))
        finally:
            if not connected:
                ray.shutdown()

    def _check(self, place: Place) -> None:
        if self.shared is None and place.keep_models:
            raise StudyError(
                "keep_models: weights do not travel from the nodes; name a folder that all of them see: "
                "--on '{name: ray, shared: FOLDER}', with --out in it"
            )
        if self.shared is not None and not self.holds(place.out):
            raise StudyError(
                f"--out {place.out} is not in the shared folder {self.shared}; give one that is"
            )

    def holds(self, path: Path) -> bool:
        """Whether a path is in the shared folder."""
        return self.shared is not None and path.absolute().is_relative_to(self.shared.absolute())

    def _needs(self, ray: Any, given: Resources, say: Callable[[str], None]) -> dict[str, float]:
        """What Ray is asked for a cell; `StudyError` where no node has it, or will have in time."""
        until = time.monotonic() + self.wait
        while True:
            nodes = _alive(ray)
            gpus = float(any(_has(node, GPU=1) for node in nodes))
            needs = {"CPU": float(given.cpus), "GPU": gpus if given.gpus is None else given.gpus}
            if any(_has(node, **needs) for node in nodes):
                break
            if time.monotonic() > until:
                raise StudyError(_impossible(needs, nodes))
            time.sleep(min(1.0, self.wait))
        say(f"on Ray, {_told(nodes)}; a cell takes {_amount(needs)}")
        return needs


class Nodes(Crew):
    """Cells as tasks of a cluster."""

    def __init__(self, ray: Any, how: Ray, place: Place, needs: Mapping[str, float]) -> None:
        self.ray, self.how, self.place, self.needs = ray, how, place, needs
        self.sent: dict[Path, Any] = {}
        """What travels of a ground, in Ray's store, by the ground's folder."""
        self.errand = Errand(
            home=Path.cwd(),
            code=code_digest(),
            threads=place.resources.cpus,
            cells=(place.out / "cells").absolute() if how.shared else None,
            cache=place.cache.absolute() if how.holds(place.cache) else None,
        )

    def prepare(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        """Each ground once, on some node. What was made of it there is kept in the study's folder, so
        that all cells have the same, in a study that is gone on with, too."""
        homes = [self._home(cell) for cell in cells]
        missing = []
        for number, home in enumerate(homes):
            if (home / "ground.json").is_file():
                yield number, _ground_in(home), ""
            else:
                missing.append(number)
        given = [(cells[number].world, cells[number].seed) for number in missing]
        for index, found, error in self._each(make_ground, given, lambda i: f"ground {i}"):
            number = missing[index]
            yield number, None if error else _kept(homes[number], *found), error

    def do(self, work: Sequence[tuple[Cell, Ground]], keep_models: bool) -> Iterator[Ended]:
        folder = self.place.out / "cells"
        given = []
        for cell, ground in work:
            begin(cell, folder / cell.name)
            given.append((cell, ground, self._parts(cell, ground), keep_models))
        for number, found, error in self._each(do_cell, given, lambda n: work[n][0].name):
            if error:
                yield number, None, error
                continue
            state, content = found
            if content:
                unpack(content, folder / work[number][0].name)
            yield number, state, ""

    def _home(self, cell: Cell) -> Path:
        return self.place.out.absolute() / "grounds" / digest_of([cell.world, cell.seed])

    def _parts(self, cell: Cell, ground: Ground) -> Any:
        """The folders of a ground that travel, packed once and put where all nodes find them."""
        home = self._home(cell)
        if home not in self.sent:
            folders = {part: getattr(ground, part) for part in PARTS}
            mine = {part: path for part, path in folders.items() if path.is_relative_to(home)}
            self.sent[home] = self.ray.put({part: packed(path) for part, path in mine.items()})
        return self.sent[home]

    def _each(
        self, task: Callable[..., Any], given: Sequence[Sequence[Any]], name: Callable[[int], str]
    ) -> Iterator[Ended]:
        """Do a task with each of some arguments; again, where its node was lost."""
        asked = self.ray.remote(
            num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"], max_retries=0
        )(task)
        waiting, lost = deque(range(len(given))), Counter[int]()
        running: dict[Any, int] = {}
        possible = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < (self.place.jobs or len(given)):
                    number = waiting.popleft()
                    running[asked.remote(self.errand, *given[number])] = number
                ended, _ = self.ray.wait(list(running), num_returns=1, timeout=LOOK)
                possible = self._still_possible(possible)
                for one in ended:
                    number = running.pop(one)
                    value, error = self._outcome(one)
                    if error is None and lost[number] < self.how.again:
                        lost[number] += 1
                        self.place.say(f"{name(number)}: its node was lost, it is done again")
                        waiting.append(number)
                        continue
                    yield number, value, "its node was lost, each time" if error is None else error
        finally:
            for one in running:
                with suppress(Exception):
                    self.ray.cancel(one, force=True)

    def _outcome(self, one: Any) -> tuple[Any, str | None]:
        """What a task came to, and why it failed; None: its node was lost."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(one), ""
        except (errors.NodeDiedError, errors.ObjectLostError):
            return None, None
        except errors.OutOfMemoryError:
            return None, "its node had no memory left for it, and Ray ended it"
        except errors.WorkerCrashedError:
            return None, "its process died"
        except errors.RayTaskError as error:
            return None, first_line(error.cause or error)
        except errors.RayError as error:
            return None, first_line(error)

    def _still_possible(self, before: float) -> float:
        """When anything was last possible; `StudyError` where nothing is any more."""
        nodes = _alive(self.ray)
        if any(_has(node, **self.needs) for node in nodes):
            return time.monotonic()
        if time.monotonic() - before > self.how.wait:
            raise StudyError(
                f"{_impossible(self.needs, nodes)}, and run this again: what is done is found"
            )
        return before


def _library() -> Any:
    try:
        import ray
    except ImportError as error:
        raise StudyError(
            "--on ray: Ray is not installed; pip install 'onestage[ray]', or leave --on out"
        ) from error
    return ray


def _require_same(ray: Any, address: str | None) -> None:
    """Raise where this process is connected to another cluster than the one that is asked for."""
    there = ray.get_runtime_context().gcs_address
    if address and not address.startswith("ray://") and address != there:
        raise StudyError(
            f"--on ray:{address}: this process is connected to the cluster at {there} already; call "
            "ray.shutdown() first, or leave the address out"
        )


def _connect(ray: Any, address: str) -> None:
    _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many classes: no cluster, another version of Ray or Python
        raise _nowhere(address, " ".join(str(error).split())) from error


def _nowhere(address: str, why: str) -> StudyError:
    there = (
        f"no cluster at {address} ({why})"
        if address != "auto"
        else "this machine is a node of no cluster, and RAY_ADDRESS names none"
    )
    return StudyError(
        f"--on ray: {there}; start one with `ray start --head`, or give the address of one: "
        "--on ray:HOST:PORT"
    )


def _reach(address: str) -> None:
    """Raise where nobody answers, which `ray.init` would try for minutes."""
    if address in ("auto", "local") or os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        number = int(port)
    except ValueError as error:
        raise StudyError(f"--on ray:{address}: give HOST:PORT, as in ray:10.0.0.7:6379") from error
    try:
        with socket.create_connection((host.strip("[]"), number), timeout=LOOK) as line:
            line.sendall(PREFACE)
            answer = line.recv(9)
    except (OSError, OverflowError) as error:
        answer, why = b"", str(error)
    else:
        why = "something else answers there"
    if answer[3:4] != b"\x04":  # gRPC's own settings
        raise _nowhere(address, why)


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _has(node: Mapping[str, Any], **needs: float) -> bool:
    return all(node["Resources"].get(what, 0) >= amount for what, amount in needs.items())


def _amount(of: Mapping[str, float]) -> str:
    cpus, gpus = of.get("CPU", 0), of.get("GPU", 0)
    return f"{cpus:g} CPU{'s' * (cpus != 1)} and {gpus:g} GPU{'s' * (gpus != 1)}"


def _told(nodes: Sequence[Mapping[str, Any]]) -> str:
    """`3 nodes (2 of 8 CPUs and 1 GPU, 1 of 4 CPUs and 0 GPUs)`."""
    sorts = Counter(_amount(node["Resources"]) for node in nodes)
    listed = ", ".join(f"{count} of {sort}" for sort, count in sorts.most_common())
    return f"{len(nodes)} node{'s' * (len(nodes) != 1)}" + (f" ({listed})" if listed else "")


def _impossible(needs: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"a cell takes {_amount(needs)}, and no node of the cluster has them: {_told(nodes)}; ask for "
        "less (--set resources.cpus=1 --set resources.gpus=0), or start such a node"
    )


def _kept(home: Path, ground: Ground, parts: Mapping[str, bytes]) -> Ground:
    """A ground, in the study's folder where any of it was made on a node."""
    if not parts:
        return ground
    with whole_folder(home) as draft:
        for part, content in parts.items():
            (draft / part).mkdir()
            extract(content, draft / part)
        told = {part: None if part in parts else str(getattr(ground, part)) for part in PARTS}
        more = {"about": dict(ground.about), "notes": list(ground.notes)}
        write_json(draft / "ground.json", {**told, **more})
    return _ground_in(home)


def _ground_in(home: Path) -> Ground:
    told = read_json(home / "ground.json")
    folders = {part: home / part if told[part] is None else Path(told[part]) for part in PARTS}
    return Ground(**folders, about=told["about"], notes=told.get("notes", ()))
