"""Sharing: the images of a command among the workers of a Dask cluster, on this machine or on many."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vizcnn.cli.images import Outcome, Task, Work
from vizcnn.cli.stdin import StandardInput
from vizcnn.errors import VizcnnError
from vizcnn.models.model import Model
from vizcnn.models.remembering import keep, promise_unchanged
from vizcnn.output import write_whole
from vizcnn.process import Turns
from vizcnn.scanning.cluster import distribute, open_cluster, send
from vizcnn.scanning.observe import set_threads

_MOST_IMAGES = 16  # of a part: for each part, a worker unpacks the network and checks it anew
_PARTS_EACH = 4  # that a worker gets at least, where there are so many images: some finish sooner than others

_TURNS = Turns()  # a worker may have several threads, and filters of warnings belong to all of them

Files = list[tuple[Outcome, bytes | None]]
"""What came of each task of a part, with the contents of its file."""


@dataclass(frozen=True)
class _Job:
    """Tasks in parts. identity: the model's provenance, since a worker may not have the files of its code. threads: of
    torch, for each worker."""

    model: Model
    identity: Mapping[str, Any]
    work: Work
    parts: Sequence[Sequence[Task]]
    threads: int

    def run_part(self, number: int) -> bytes:
        """The pickled `Files` of a part: what a worker runs. Its own files are temporary."""
        with _TURNS.take(), set_threads(self.threads), TemporaryDirectory() as folder:
            tasks = [
                replace(task, output=Path(folder) / f"{i}{task.output.suffix}")
                for i, task in enumerate(self.parts[number])
            ]
            outcomes: list[Outcome] = []
            with promise_unchanged(self.model):
                with self.model.borrowed():
                    keep(self.model, "identity", self.identity)
                self.work.run(self.model, tasks, outcomes.append)
            return pickle.dumps([_pack(outcome) for outcome in outcomes])


def _pack(outcome: Outcome) -> tuple[Outcome, bytes | None]:
    """An outcome that can be sent, with the contents of its file."""
    data = outcome.task.output.read_bytes() if outcome.saved else None
    try:
        pickle.loads(pickle.dumps(outcome.error))
    except Exception:  # an error of other people that cannot be sent
        error = outcome.error
        outcome = replace(outcome, error=RuntimeError(f"{type(error).__name__}: {error}"))
    return outcome, data


@contextmanager
def open_workers(address: str | None, workers: int | None) -> Iterator[Any]:
    """While the context is open: the client of `open_cluster`. Workers on this machine share its processors."""
    import torch

    if workers:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))  # which is what a worker is told to use
    with open_cluster(address, workers) as client:
        yield client


def run_on_cluster(
    client: Any, work: Work, model: Model, tasks: Sequence[Task], report: Callable[[Outcome], None]
) -> None:
    """Do all tasks with the workers of a cluster, write the files here, and report as `Work.run` does.

    After Ctrl-C, or where the cluster is lost, what has come until then is reported, and the error is raised again. A
    part that fails as a whole, since its workers have died, is an error of each of its images."""
    import torch

    size = max(1, min(_MOST_IMAGES, len(tasks) // (_PARTS_EACH * max(1, len(client.nthreads())))))
    named = [replace(task, image=_make_absolute(task.image)) for task in tasks]
    parts = [named[start : start + size] for start in range(0, len(tasks), size)]
    job = _Job(model, model.provenance(), work, parts, torch.get_num_threads())
    done: dict[int, deque[Outcome]] = {}
    reported = 0

    def report_part(number: int) -> None:
        while done[number]:
            report(done[number][0])
            done[number].popleft()

    try:
        for number, fetch in distribute(client, send(client, job, model.network), _Job.run_part, range(len(parts))):
            done[number] = deque(_receive(tasks[number * size : (number + 1) * size], fetch))
            while reported in done:
                report_part(reported)
                reported += 1
    except (Exception, KeyboardInterrupt):
        for number in sorted(done):
            report_part(number)
        raise


def _receive(tasks: Sequence[Task], fetch: Callable[[], bytes]) -> list[Outcome]:
    """What came of the tasks of a part, with their files written. fetch: gives the pickled `Files`, or raises."""
    try:
        files: Files = pickle.loads(fetch())
    except Exception as error:
        return [Outcome(task, error=_explain_loss(task, error)) for task in tasks]
    return [_write(task, *each) for task, each in zip(tasks, files, strict=True)]


def _explain_loss(task: Task, error: Exception) -> VizcnnError:
    """Why an image was not done whose part has failed as a whole, mostly since it or another one ends its workers."""
    name = StandardInput.name if isinstance(task.image, StandardInput) else task.image
    lost = VizcnnError(
        f"{name} was not done: it was in a part at which workers have failed, out of memory? ({type(error).__name__}: "
        f"{error}) The same command again does the images that are not there"
    )
    lost.__cause__ = error
    return lost


def _make_absolute(image: str | StandardInput | None) -> str | StandardInput | None:
    """The same image for workers, which may work in another folder. What is no file here keeps its name."""
    return os.path.abspath(image) if isinstance(image, str) and os.path.exists(image) else image


def _name_as_given(task: Task, outcome: Outcome) -> Outcome:
    """The same outcome, whose error and warnings call the image what the person calls it."""
    given, sent = str(task.image), str(_make_absolute(task.image))
    if outcome.error is not None:
        outcome.error.args = tuple(
            arg.replace(sent, given) if isinstance(arg, str) else arg for arg in outcome.error.args
        )
    return replace(outcome, warnings=[text.replace(sent, given) for text in outcome.warnings])


def _write(task: Task, outcome: Outcome, data: bytes | None) -> Outcome:
    """What came of a task, with its file written."""
    outcome = replace(_name_as_given(task, outcome), task=task)
    try:
        if data is not None:
            with write_whole(task.output) as fresh:
                fresh.write_bytes(data)
    except Exception as error:
        return replace(outcome, saved=None, error=error)
    return outcome
