"""Rounds test what testing one suspect after the other would test, whatever each takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vizcnn.auditing import search
from vizcnn.auditing.proving import MOST_RUNS
from vizcnn.auditing.search import Search
from vizcnn.auditing.tasks import Outcome, Task


@dataclass
class Lottery:
    """Suspects of some classes, what the test of each takes and says, and which of a class account for which."""

    seed: int
    count: int = 40
    labels: list[int] = field(init=False)
    runs: list[int] = field(init=False)
    proven: list[bool] = field(init=False)
    known: Any = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.labels = rng.integers(0, 6, self.count).tolist()
        self.runs = rng.integers(0, MOST_RUNS + 1, self.count).tolist()
        self.proven = (rng.random(self.count) < 0.4).tolist()
        self.known = rng.random((self.count, self.count)) < 0.5

    def accounts_for(self, a: int, b: int) -> bool:
        return bool(self.labels[a] == self.labels[b] and self.known[a, b])

    def test_one_by_one(self, limit: int) -> tuple[set[int], int, int]:
        """What is proven, what was left untested, and the runs."""
        proven, untested, runs = list[int](), 0, 0
        for k in range(self.count):
            if any(self.accounts_for(each, k) for each in proven):
                continue
            if runs > limit - MOST_RUNS:
                untested += 1
                continue
            runs += self.runs[k]
            if self.proven[k]:
                proven.append(k)
        return {*proven}, untested, runs

    def run(self, tasks: Sequence[Task], *_: object) -> Iterator[tuple[Task, Outcome]]:
        """As workers do: in any order."""
        for k in np.random.default_rng(self.seed).permutation(len(tasks)):
            task = tasks[k]
            verdict = "shortcut" if self.proven[task.number] else "dismissed"
            found = SimpleNamespace(verdict=verdict, suspect=SimpleNamespace(number=task.number))
            yield task, Outcome(found, self.runs[task.number], 0.0, 0.0)


@pytest.mark.parametrize("limit", [0, MOST_RUNS, 5 * MOST_RUNS + 7, 40 * MOST_RUNS])
@pytest.mark.parametrize("seed", range(5))
def test_rounds_are_as_one_by_one(seed: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lottery = Lottery(seed)
    monkeypatch.setattr(search, "_is_known", lambda _, a, b: lottery.accounts_for(a.suspect.number, b.number))
    network = SimpleNamespace(runs=0, seconds=0.0, images=[])
    ground: Any = SimpleNamespace(network=network, matching=SimpleNamespace(seconds=0.0))
    suspects: list[Any] = [SimpleNamespace(number=k) for k in range(lottery.count)]
    rounds = Search(ground, 0, None, None, progress=False)
    rounds._limit = limit
    tasks = [Task(label, k, suspects[k]) for k, label in enumerate(lottery.labels)]
    rounds._test(lottery, tasks)  # type: ignore[arg-type]
    assert ({*rounds._proven}, rounds.untested, network.runs) == lottery.test_one_by_one(limit)
    assert network.runs <= limit
