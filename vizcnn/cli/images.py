"""Images: many through one probe. The next photograph is read and finished results are saved beside the computing."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vizcnn.cli.saving import Saved, Saving
from vizcnn.cli.stdin import StandardInput
from vizcnn.errors import Interrupted
from vizcnn.inputs.images import read_source
from vizcnn.inputs.reading import Reading
from vizcnn.models.model import Model
from vizcnn.models.remembering import promise_unchanged
from vizcnn.process import collect_warnings, ignore_warnings
from vizcnn.results import Provenance, Result

_SAME = (
    "version", "probe", "plugin", "options", "files", "model", "weights_sha256", "network_sha256", "input", "images",
    "targets", "target_specs", "seed", "refused",
)  # fmt: skip
"""What two calls share that give the same result. Another torch or device may change last digits only."""

_MOST_WAITING = 6  # results that are not saved yet; each holds a photograph

Compute = Callable[..., Result]
"""Makes a result from a model, an image and `progress`."""

Identify = Callable[[Model, Any], Provenance]
"""From a model and an image the provenance that the result of the same call has, but for `details`."""


@dataclass(frozen=True)
class Task:
    """An image, or None for a probe of the network alone, and the file for its result.

    found: what a result that is there already says of its making, where it is to be kept if this call would make it
    again. style: that the picture is drawn in; None for the usual one.
    """

    image: str | StandardInput | None
    output: Path
    found: Mapping[str, Any] | None = None
    style: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    saved: what is left of the result when it is in its file. error: why there is none. Neither: the result of the same
    call was there already. warnings: what was said on the way.
    """

    task: Task
    saved: Saved | None = None
    error: Exception | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Work:
    """What is done with each image. Without `identify`, whatever is there is made again."""

    compute: Compute
    identify: Identify | None = None

    def run(
        self,
        model: Model,
        tasks: Sequence[Task],
        report: Callable[[Outcome], None],
        *,
        pool: ProcessPoolExecutor | None = None,
        progress: bool = False,
    ) -> None:
        """Do all tasks, and report what came of each, in their order. pool: of processes that save results.

        What was found out about the network for one image serves the others. After Ctrl-C, what is finished is saved
        and reported, a partial result too, and KeyboardInterrupt is raised again."""
        waiting = deque[_Finished]()

        def report_finished(most: int) -> None:
            while waiting and (len(waiting) > most or waiting[0].is_saved()):
                report(waiting[0].wait())
                waiting.popleft()  # not before: Ctrl-C may have come while it was waited for

        with promise_unchanged(model), collect_warnings() as texts:
            try:
                for task, image in _read_ahead(tasks, model):
                    texts.clear()
                    try:
                        outcome, result = self._do(model, task, image, progress)
                    except Interrupted as stopped:
                        saving = Saving(stopped.result, task.output, task.style, pool)
                        waiting.append(_Finished(Outcome(task, warnings=[*texts]), saving))
                        raise
                    coming = None if result is None else Saving(result, task.output, task.style, pool)
                    waiting.append(_Finished(replace(outcome, warnings=[*texts]), coming))
                    report_finished(_MOST_WAITING)
                report_finished(0)
            except KeyboardInterrupt:
                report_finished(0)
                raise

    def _do(self, model: Model, task: Task, image: Any, progress: bool) -> tuple[Outcome, Result | None]:
        """What came of one task until now, and the result that is still to be saved."""
        try:
            if self.identify and task.found and _are_same(task.found, task.style, self.identify(model, image)):
                return Outcome(task), None
            return Outcome(task), self.compute(model, image, progress=progress)
        except Exception as error:
            return Outcome(task, error=error), None


@dataclass(frozen=True)
class _Finished:
    """A task that is computed, and its result on the way to its file."""

    outcome: Outcome
    saving: Saving | None

    def is_saved(self) -> bool:
        return self.saving is None or self.saving.is_done()

    def wait(self) -> Outcome:
        """What came of the task, when its result is saved."""
        if self.saving is None:
            return self.outcome
        with collect_warnings() as texts:
            try:
                saved = self.saving.wait()
            except Exception as error:
                return replace(self.outcome, error=error)
        return replace(self.outcome, saved=saved, warnings=[*self.outcome.warnings, *texts, *saved.warnings])


def _are_same(found: Mapping[str, Any], style: str | None, expected: Provenance) -> bool:
    """Whether a whole result that was found is of the call that gives this provenance, and drawn in this style."""
    wanted = json.loads(json.dumps(asdict(expected), default=str))
    if found.get("partial") or found.get("style") != style:
        return False
    if not wanted["weights_sha256"]:  # of a black box nothing tells whether it is the same
        return False
    if found.get("trust", False) != wanted["trust"]:  # which those that were made before it was asked do not say
        return False
    return all(name in found and found[name] == wanted[name] for name in _SAME)


def _read_ahead(tasks: Sequence[Task], model: Model) -> Iterator[tuple[Task, Any]]:
    """Each task with its photograph, which is read while the image before it is looked at.

    An image that cannot be read, or of which there is something to warn, comes by its name: the probe then says it."""
    if len(tasks) == 1:
        yield tasks[0], tasks[0].image
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, tasks[0], model.input.reading)
        for task, following in zip(tasks, [*tasks[1:], None], strict=True):
            image = coming.result()
            if following:
                coming = reader.submit(_read, following, model.input.reading)
            yield task, image


def _read(task: Task, reading: Reading) -> Any:
    try:
        with ignore_warnings() as ignored:
            photo = read_source(task.image, reading)
    except Exception:
        return task.image
    return task.image if ignored else photo
