"""Tasks: the pieces of an audit that do not depend on each other, done here, by workers, or before a stop.

A class is screened, or a suspect is tested. Each task draws from a random stream of its own, and whatever came of it
passes through the same bytes, so that it is the same wherever and whenever it was done.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vizcnn.auditing import cues, matching, proving, suspects
from vizcnn.auditing.clock import Clock
from vizcnn.auditing.copies import CopySearch
from vizcnn.auditing.proving import prove
from vizcnn.auditing.store import Store
from vizcnn.auditing.suspects import Ground, Suspect, find_suspects
from vizcnn.models.borrowing import borrow
from vizcnn.process import Turns
from vizcnn.results import evidence
from vizcnn.scanning.cluster import distribute, send
from vizcnn.scanning.observe import set_threads

SCREEN, TEST, SHOW = range(3)
"""What random numbers are drawn for."""

_TURNS = Turns()  # a worker may have several threads, and the random state belongs to all of them

Tell = Callable[[int], object]


@dataclass(frozen=True)
class Task:
    """A class that is to be screened, or its suspect of this number, to be tested."""

    label: int
    number: int = 0
    suspect: Suspect | None = None

    @property
    def name(self) -> str:
        """Unique in an audit, and fit for a file."""
        return f"class-{self.label}" if self.suspect is None else f"class-{self.label}-suspect-{self.number}"


@dataclass(frozen=True)
class Outcome:
    """What a task found: suspects, best first, or the evidence of a test. runs, seconds: that the network took;
    matching: the seconds that comparing pixels took."""

    found: Any
    runs: int
    seconds: float
    matching: float


def draw_stream(seed: int, step: int, label: int, number: int = 0) -> np.random.Generator:
    """The random numbers of one step for one class, and one suspect of it."""
    return np.random.default_rng([seed, step, label, number])


@dataclass(frozen=True)
class Job:
    """What all tasks work on. The network is borrowed by whoever runs them."""

    ground: Ground
    search: CopySearch
    seed: int
    threads: int

    def run(self, task: Task, tell: Tell = lambda _: None) -> bytes:
        """The packed `Outcome` of a task. tell: is called with the runs of the network that are done."""
        network = copy(self.ground.network)  # which counts anew
        network.tell = tell
        step = SCREEN if task.suspect is None else TEST
        rng, clock = draw_stream(self.seed, step, task.label, task.number), Clock()
        ground = replace(self.ground, network=network, rng=rng, matching=clock)
        found = find_suspects(ground, task.label, self.search) if task.suspect is None else prove(ground, task.suspect)
        return pack(Outcome(found, network.runs, network.seconds, clock.seconds))

    def run_alone(self, task: Task) -> bytes:
        """The same: what a worker of a cluster runs, whose network nobody has borrowed."""
        with (
            _TURNS.take(),
            set_threads(self.threads),
            borrow(self.ground.network.model, "Audit"),
            torch.no_grad(),
        ):
            return self.run(task)


class Runner:
    """Who does the tasks of a job: this process, or the workers of a client. What the store has is not done again."""

    def __init__(self, job: Job, client: Any = None, store: Store | None = None) -> None:
        self._job, self._client, self._store = job, client, store
        self._sent: Any = None  # the job, where workers have it

    def run(self, tasks: Sequence[Task], tell: Tell = lambda _: None) -> Iterator[tuple[Task, Outcome]]:
        """Each task with what came of it, in the order in which they are done. The store keeps it before it is given.

        tell: is called with the runs of the network that are done here."""
        todo = []
        for task in tasks:
            kept = self._recall(task)
            if kept is None:
                todo.append(task)
            else:
                yield task, kept
        for task, data in self._do(todo, tell):
            if self._store is not None:
                self._store.keep(task.name, data)
            yield task, unpack(data)

    def _recall(self, task: Task) -> Outcome | None:
        data = None if self._store is None else self._store.read(task.name)
        try:
            kept = None if data is None else unpack(data)
        except (pickle.UnpicklingError, RuntimeError, EOFError):  # of another version of torch: it is done again
            return None
        return kept if isinstance(kept, Outcome) else None

    def _do(self, tasks: Sequence[Task], tell: Tell) -> Iterator[tuple[Task, bytes]]:
        if self._client is None:
            for task in tasks:
                yield task, self._job.run(task, tell)
        elif tasks:
            self._sent = self._sent or send(self._client, self._job, self._job.ground.network.model.network)
            for task, fetch in distribute(self._client, self._sent, Job.run_alone, tasks):
                yield task, fetch()


def pack(outcome: Outcome) -> bytes:
    """An outcome as bytes."""
    file = io.BytesIO()
    torch.save(outcome, file)
    return file.getvalue()


def unpack(data: bytes) -> Outcome:
    """The outcome that was packed. Only our own classes are made: a file in a folder may be anybody's."""
    with torch.serialization.safe_globals(_list_classes()):
        outcome: Outcome = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return outcome


def _list_classes() -> list[Any]:
    """The classes that an outcome may be made of."""
    rooms = (cues, matching, proving, suspects, evidence)
    own = [each for room in rooms for each in vars(room).values() if isinstance(each, type)]
    return [Outcome, *(each for each in own if each.__module__ in {room.__name__ for room in rooms})]
