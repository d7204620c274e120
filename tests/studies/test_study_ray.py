"""Studies on a real Ray cluster of two nodes, one of which is killed in the middle."""

from __future__ import annotations

import csv
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname, socket
from typing import Any

import pytest
from support.small_studies import content, ground

from onestage.runfolder import read_json
from onestage.studies import executors
from onestage.studies.file import StudyError, parse_study
from onestage.studies.study import Outcome, Study

WORLD = '''\
"""Its ground is made on a node; it tells who is asked for what, and waits at a gate."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from onestage import models
from onestage.studies.worlds import Evaluated, Ground, Metric, World


@dataclass(frozen=True)
class Gated(World):
    base: Path
    rows: Path
    gate: Path

    headline = ("weights",)
    metrics = {"weights": Metric("the sum of all weights")}

    def told(self, what):
        import ray

        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        with (self.gate / "told").open("a") as file:
            file.write(f"{what} {node}\\n")

    def prepare(self, seed, cache, say):
        self.told(f"ground-{seed}")
        folder = cache.absolute() / "gated" / str(seed)
        shutil.copytree(self.base, folder / "base", dirs_exist_ok=True)
        shutil.copytree(self.rows, folder / "rows", dirs_exist_ok=True)
        return Ground(folder / "base", folder / "rows", {"made": seed})

    def evaluate(self, ground, model, seed, split):
        assert ground.about == {"made": seed}
        self.told(f"cell-{seed}")
        while seed and not (self.gate / "open").exists():
            time.sleep(0.05)
        weights = models.open(model).model.parameters()
        return Evaluated({"weights": sum(float(one.detach().double().sum()) for one in weights)})
'''


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    return ground(tmp_path_factory.mktemp("ground"), model_folder)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head and another node, a core each, which have a cache of their own."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTAGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # A node that is gone, which a check is told at once, is lost after a second and not after a
        # quarter of a minute. One that is busy has longer to answer than any machine of tests needs.
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300}
        quick |= {"health_check_timeout_ms": 20_000, "health_check_failure_threshold": 3}
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
        made = Cluster(True, head_node_args=head)
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def connected(cluster: Any) -> Iterator[Any]:
    """The cluster, connected to already: studies leave it so, and need no new processes each."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    assert ray.is_initialized()
    ray.shutdown()


def gated(folders: tuple[Path, Path], place: Path, late: Path, **changes: Any) -> dict[str, Any]:
    """A study of one method that works and one whose data are missing."""
    base, rows = folders
    study = content(base, rows, seeds=[0, 1, 2], base=None, budget={"updates": 2}, **changes)
    (place / "gate").mkdir(parents=True)
    (place / "world.py").write_text(WORLD)
    study["world"] = {
        **{"name": f"{place / 'world.py'}:Gated", "gate": str(place / "gate")},
        **{"base": str(base), "rows": str(rows)},
    }
    sft = study["methods"]["SFT"]
    broken = {**sft, "data": {"demos": {"path": str(late)}}}
    study["methods"] = {"SFT": sft, "broken": broken}
    return study


def do(study: dict[str, Any], out: Path, on: str, **options: Any) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    where, cache = executors.make(on), out.parent / "cache"
    options = {"jobs": 1 if on == "local" else None, **options}
    doing = Study(parse_study(study), out, cache, on=where, say=lines.append, **options)
    return doing.go(), lines


def found(outcome: Outcome) -> dict[tuple[str, str], float]:
    return {(row.cell, row.metric): row.value for row in outcome.rows if row.metric != "seconds"}


def told(place: Path) -> list[list[str]]:
    file = place / "gate" / "told"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def kill_in_the_middle(cluster: Any, place: Path) -> None:
    """Once both nodes are at a cell that waits, one dies, and the other may go on."""
    head, (victim,) = cluster.head_node, cluster.worker_nodes
    until = time.monotonic() + 180
    while {node for what, node in told(place) if what in ("cell-1", "cell-2")} != {
        head.node_id,
        victim.node_id,
    }:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    cluster.remove_node(victim, allow_graceful=False)
    (place / "gate" / "open").touch()


def none_here(**options: Any) -> None:
    """`ray.init` where no cluster runs; on a machine of tests one may."""
    assert options["address"] == "auto"
    raise ConnectionError("Could not find any running Ray instance.")


def silent_port() -> tuple[socket, str]:
    """A port at which somebody listens who says nothing."""
    listening = socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening, f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_cluster_that_is_not_there(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("onestage.studies.executors.ray.LOOK", 0.2)
    listening, silent = silent_port()
    with listening:
        for address in ("127.0.0.1:1", silent, "nowhere.invalid:6379"):
            with pytest.raises(StudyError, match=rf"no cluster at {address} .*`ray start --head`"):
                do(content(*folders), tmp_path / "out", f"ray:{address}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", none_here)
    with pytest.raises(
        StudyError, match=r"this machine is a node of no cluster.*`ray start --head`"
    ):
        do(content(*folders), tmp_path / "out", "ray")
    with pytest.raises(StudyError, match="give HOST:PORT, as in"):
        do(content(*folders), tmp_path / "out", "ray:somewhere")
    assert not (tmp_path / "out").exists()


def test_what_no_node_has_is_not_waited_for(
    cluster: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    import ray

    on = f"ray:{cluster.address}"
    for wanted, amount in (({"cpus": 64}, "64 CPUs and 0 GPUs"), ({"gpus": 0.5}, "0.5 GPUs")):
        with pytest.raises(
            StudyError, match=rf"a cell takes .*{amount}, and no node .*1 CPU and 0"
        ):
            do(content(*folders, resources=wanted), tmp_path / "out", on)
    assert not (tmp_path / "out").exists()
    assert not ray.is_initialized()


def test_a_node_that_dies_costs_only_its_cells(
    connected: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """And what a study finds on a cluster is, to the last bit, what it finds here."""
    late, on = tmp_path / "late.jsonl", f"ray:{connected.address}"
    study = gated(folders, tmp_path / "there", late)
    (node,) = connected.worker_nodes
    victim = node.node_id
    killing = threading.Thread(target=kill_in_the_middle, args=(connected, tmp_path / "there"))
    killing.start()
    outcome, lines = do(study, tmp_path / "there" / "out", on)
    killing.join()

    asks = told(tmp_path / "there")
    asked = Counter(what for what, _ in asks)
    (lost,) = (what for what, node in asks if node == victim and what in ("cell-1", "cell-2"))
    assert asked == {
        **{f"ground-{seed}": 1 for seed in range(3)},
        **{f"cell-{seed}": 1 for seed in range(3)},
        lost: 2,
    }
    again = f"SFT-seed={lost[-1]}: its node was lost, it is done again"
    assert lines.count(again) == sum("lost" in line for line in lines) == 1
    assert any("2 nodes (2 of 1 CPU and 0 GPUs)" in line for line in lines)

    # What is missing on a node is told with its name; the other cells are none the worse.
    assert set(outcome.failed) == {f"broken-seed={seed}" for seed in range(3)}
    for reason in outcome.failed.values():
        assert reason.startswith(f"on node {gethostname()}: ")
        assert str(late) in reason
    cell = tmp_path / "there" / "out" / "cells" / "SFT-seed=1"
    assert read_json(cell / "status.json")["node"] == gethostname()
    assert {"cell.json", "results.json", "log.txt", "samples.jsonl", "run"} <= {
        path.name for path in cell.iterdir()
    }
    assert (cell / "run" / "metrics.jsonl").is_file()
    assert not list(cell.rglob("*.safetensors"))

    # Started again, only what failed is done, on the grounds that there are.
    shutil.copyfile(folders[1] / "demonstration.train.jsonl", late)
    outcome, _ = do(study, tmp_path / "there" / "out", on, retry=True)
    assert not outcome.failed
    after = Counter(what for what, _ in told(tmp_path / "there"))
    assert after - asked == {f"cell-{seed}": 1 for seed in range(3)}

    here = gated(folders, tmp_path / "here", late)
    (tmp_path / "here" / "gate" / "open").touch()
    alone, _ = do(here, tmp_path / "here" / "out", "local")
    assert not alone.failed
    assert found(alone) == found(outcome)
    tables = [
        [
            {k: v for k, v in line.items() if k != "value" or line["metric"] != "seconds"}
            for line in csv.DictReader((tmp_path / place / "out" / "results.csv").open())
        ]
        for place in ("here", "there")
    ]
    assert tables[0] == tables[1]


def test_cells_in_a_folder_that_all_nodes_see(
    connected: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    study = gated(folders, tmp_path, tmp_path / "late.jsonl", keep_models=True)
    study |= {"seeds": [0], "methods": {"SFT": study["methods"]["SFT"]}}
    where = f"{{name: ray, address: '{connected.address}', shared: {tmp_path}}}"
    outcome, _ = do(study, tmp_path / "out", where)
    assert not outcome.failed
    with pytest.raises(
        StudyError, match=f"connected to the cluster at {connected.address} already"
    ):
        do(study, tmp_path / "out", f"{{name: ray, address: 'h:1', shared: {tmp_path}}}")
    assert list((tmp_path / "out").rglob("model/*.safetensors"))
    assert not (tmp_path / "out" / "grounds").exists()
    assert (tmp_path / "cache" / "gated").is_dir()


def test_what_is_refused_before_a_cluster_is_asked(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError, match="gpus"):
        parse_study(content(*folders, resources={"gpus": 2}))
    with pytest.raises(ValueError, match=r"unknown executor 'rays'.*did you mean 'ray'"):
        executors.make("rays")
    with pytest.raises(ValueError, match="unknown option 'adress'"):
        executors.make("{name: ray, adress: 1}")
    assert executors.make("ray:h:1") == executors.make({"name": "ray", "address": "h:1"})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"Ray is not installed; pip install 'onestage\[ray\]'"):
        do(content(*folders), tmp_path / "out", "ray")


def test_weights_do_not_travel(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(StudyError, match=r"keep_models: .*shared: FOLDER"):
        do(content(*folders, keep_models=True), tmp_path / "out", "ray:h:1")
    shared = f"{{name: ray, address: 'h:1', shared: {tmp_path / 'all'}}}"
    with pytest.raises(StudyError, match="is not in the shared folder"):
        do(content(*folders), tmp_path / "out", shared)


def test_here_resources_are_said_to_do_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    study = content(*folders, seeds=[0], base=None, budget={"updates": 1}, resources={"cpus": 2})
    study["methods"].pop("SFT then DPO")
    _, lines = do(study, tmp_path / "out", "local")
    assert sum("--jobs says how many run" in line for line in lines) == 1
