"""An audit that was stopped goes on where it was, any number of workers find the same, and no two audits are mixed."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support_audit import draw_images, make_model, plant_tags
from torch import Tensor

import vizcnn
from vizcnn.auditing import tasks
from vizcnn.auditing.store import Store, describe_identity
from vizcnn.auditing.tasks import unpack
from vizcnn.errors import Interrupted, ParameterError
from vizcnn.scanning.cluster import open_cluster


@pytest.fixture(scope="module")
def tagged() -> Tensor:
    return plant_tags(draw_images()[0], range(12))


@pytest.fixture(scope="module")
def whole(tagged: Tensor) -> vizcnn.Audit:
    """What an audit finds that is not stopped."""
    return audit(tagged)


def audit(images: Tensor, **options: Any) -> vizcnn.Audit:
    return vizcnn.audit(make_model(use=4), images, progress=False, **options)


def check_same(one: vizcnn.Audit, two: vizcnn.Audit) -> None:
    """All but the seconds is the same."""
    a, b = ({k: v for k, v in each.summary().items() if "seconds" not in k} for each in (one, two))
    assert a == b
    for first, second in zip(one.findings, two.findings, strict=True):
        assert np.array_equal(first.sheet.pasted, second.sheet.pasted)
        assert first.sheet.removed_answers == second.sheet.removed_answers


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], list[object]]:
    """Press Ctrl-C when a step is called so often; 0: never. Gives the list of its calls."""

    def prepare(step: str, number: int) -> list[object]:
        monkeypatch.undo()
        calls, real = list[object](), getattr(tasks, step)

        def call(*given: Any) -> Any:
            calls.append(given)
            if len(calls) == number:
                raise KeyboardInterrupt
            return real(*given)

        monkeypatch.setattr(tasks, step, call)
        return calls

    return prepare


@pytest.mark.parametrize("step", ["find_suspects", "prove"])
def test_a_stopped_audit_goes_on_and_finds_the_same(
    tagged: Tensor, whole: vizcnn.Audit, tmp_path: Path, stop_at: Callable[[str, int], list[object]], step: str
) -> None:
    folder = tmp_path / "kept"
    stop_at(step, 2)
    with pytest.raises(Interrupted):
        audit(tagged, folder=folder)
    assert len([*folder.glob("*.task")]) == (1 if step == "find_suspects" else 4)
    calls = stop_at(step, 0)
    again = audit(tagged, folder=folder, suspicions=False)
    check_same(again, whole)
    everything = stop_at(step, 0)
    audit(tagged)
    assert len(calls) == len(everything) - 1, "the first is not done again"
    assert not folder.exists(), "all is done"


def test_two_audits_are_not_mixed(
    tagged: Tensor, whole: vizcnn.Audit, tmp_path: Path, stop_at: Callable[[str, int], list[object]]
) -> None:
    stop_at("prove", 2)
    with pytest.raises(Interrupted):
        audit(tagged, folder=tmp_path)
    stop_at("prove", 0)
    before = sorted(tmp_path.iterdir())
    for options in ({"seed": 1}, {"per_class": 16}, {"labels": {"tensor 0": "red"}}):
        with pytest.raises(ParameterError, match="what another audit did until it was stopped"):
            audit(tagged, folder=tmp_path, **options)
    with pytest.raises(ParameterError, match="dataset fingerprint: .* there, .* here"):
        audit(draw_images()[0], folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    file = next(tmp_path.glob("*suspect*"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    check_same(audit(tagged, folder=tmp_path), whole)


def test_a_folder_of_other_people_is_left_alone(tagged: Tensor, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ParameterError, match="holds files that are not of an audit"):
        audit(tagged, folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_was_kept_is_of_one_task_of_one_audit(tmp_path: Path) -> None:
    store = Store(tmp_path / "a", describe_identity(seed=0))
    store.keep("class-1", b"found")
    assert store.read("class-1") == b"found"
    assert store.read("class-2") is None
    (tmp_path / "a" / "class-2.task").write_bytes((tmp_path / "a" / "class-1.task").read_bytes())
    assert store.read("class-2") is None, "it is of another task"
    assert Store(tmp_path / "a", describe_identity(seed=1)).read("class-1") is None, "it is of another audit"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("somebody's code runs",)


def test_a_file_runs_nobodys_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_Evil(), tmp_path / "evil")
    with pytest.raises(pickle.UnpicklingError):
        unpack((tmp_path / "evil").read_bytes())
    assert "somebody" not in capsys.readouterr().out


def test_what_is_kept_never_lies_in_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="would lie in the data set"):
        vizcnn.audit(make_model(), tmp_path, folder=tmp_path / "kept", progress=False)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    with open_cluster(None, 2) as client:
        client.run(_let_import, str(Path(__file__).parent.parent))
        yield client


@pytest.fixture(scope="module", params=[2, 1])
def client(request: pytest.FixtureRequest, two_workers: Any) -> Any:
    """Of two workers, then of the one that is left of them: each takes seconds to start."""
    two_workers.cluster.scale(request.param)
    while len(two_workers.nthreads()) > request.param:  # asks the scheduler, as a worker that leaves may not answer
        time.sleep(0.05)
    return two_workers


def _let_import(folder: str) -> None:
    import sys

    sys.path.insert(0, folder)


def test_workers_find_the_same(
    tagged: Tensor, whole: vizcnn.Audit, client: Any, tmp_path: Path, stop_at: Callable[[str, int], list[object]]
) -> None:
    stop_at("prove", 2)  # here: the workers go on with what this process has done
    with pytest.raises(Interrupted):
        audit(tagged, folder=tmp_path)
    calls = stop_at("prove", 0)
    check_same(audit(tagged, folder=tmp_path, client=client), whole)
    assert not calls, "all else was done by the workers"


def test_the_limit_of_runs_holds_and_is_the_same_for_workers(
    tagged: Tensor, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1500
    monkeypatch.setattr("vizcnn.auditing.search.LEAST_RUNS", limit)
    monkeypatch.setattr("vizcnn.auditing.search.RUNS", 1)
    few = audit(tagged)
    assert few.untested, "or the limit is not felt"
    assert few.findings
    sheets = 30 * len(few.findings)  # of five rows with six pictures
    assert few.runs * len(tagged) <= limit + sheets
    check_same(audit(tagged, client=client), few)
