"""The search of an audit: all classes are screened, then suspects tested, best first, within a limit of runs.

What it finds depends neither on who does the tasks nor on the order in which they are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vizcnn import progress as bars
from vizcnn.auditing.copies import CopySearch
from vizcnn.auditing.proving import MOST_RUNS, Evidence
from vizcnn.auditing.store import Store
from vizcnn.auditing.suspects import FEWEST_OWN, Ground, Suspect, accounts_for, estimate_runs, recurs_at
from vizcnn.auditing.tasks import Job, Outcome, Runner, Task

RUNS = 18
"""Of the network for each image, at most, where screening leaves some of them for tests."""

TEST_RUNS = 4
"""For each image, that tests may take whatever screening took: of a black box, and of small classes, it takes more."""

LEAST_RUNS = 3000
"""Of a small folder, whose tests would not fit otherwise."""

_SAMPLED = 64  # images by which patches are turned into few numbers
_ORDER = ("shortcut", "part", "suspicion")


class Search:
    """What is proven, how many suspects were left `untested`, and whether Ctrl-C came: `partial`."""

    def __init__(self, ground: Ground, seed: int, client: Any, store: Store | None, progress: bool) -> None:
        self._ground, self._seed, self._progress = ground, seed, progress
        self._client, self._store = client, store
        self._limit = 0
        self._proven: dict[int, Evidence] = {}  # by the place of the suspect in the order
        self.untested, self.partial = 0, False

    def find_evidence(self) -> list[Evidence]:
        """What is proven, in the order of showing; after Ctrl-C what was proven until then."""
        try:
            runner = Runner(self._make_job(), self._client, self._store)
            suspects = self._screen(runner)
            count, screened = len(self._ground.network.images), self._ground.network.runs
            self._limit = max(RUNS * count, LEAST_RUNS, screened + TEST_RUNS * count)
            self._test(runner, [*_take_turns(suspects)])
        except KeyboardInterrupt:
            self.partial = True
        in_order = [self._proven[place] for place in sorted(self._proven)]
        return list(_drop_colours(sorted(in_order, key=_rank)))

    def _make_job(self) -> Job:
        ground = self._ground
        sample = np.random.default_rng(self._seed).permutation(ground.halves.searched)[:_SAMPLED]
        with ground.matching:
            copies = CopySearch(ground.see_all(sample), self._seed)
        _ = ground.network.last_layer  # found once, for all workers
        return Job(ground, copies, self._seed, torch.get_num_threads())

    def _screen(self, runner: Runner) -> list[Task]:
        """A task for each suspect of classes with enough images, those of copied px first, and then by score."""
        halves = self._ground.halves
        enough = [int(k) for k in np.unique(halves.classes) if k >= 0 and (halves.classes == k).sum() >= FEWEST_OWN]
        worth = {label: estimate_runs(len(halves.pick(halves.searched, label))) for label in enough}
        found = list[Task]()
        with bars.bar(sum(worth.values()), "searching", "run", shown=self._progress) as bar:
            move = _Mover(bar)
            for task, outcome in runner.run([Task(label) for label in worth], move):
                self._count(outcome)
                move.finish(worth[task.label])
                found += [Task(task.label, number, each) for number, each in enumerate(outcome.found)]
        return sorted(found, key=lambda task: (*_judge_by_score(task), task.label, task.number))

    def _test(self, runner: Runner, tasks: list[Task]) -> None:
        """Test suspects in rounds of different classes, as many as the limit allows.

        A round has only what would be tested one after the other, too: for all that comes before it in the order, and
        waits for another suspect of its class, the most runs are set aside."""
        places, waiting = {id(task): place for place, task in enumerate(tasks)}, tasks
        with bars.bar(len(tasks), "testing", "suspect", shown=self._progress) as bar:
            while waiting:
                now, later = self._choose_round(waiting)
                bar.update(len(waiting) - len(now) - len(later))
                for task, outcome in runner.run(now):
                    self._count(outcome)
                    bar.update(1)
                    if outcome.found is not None and outcome.found.verdict != "dismissed":
                        self._proven[places[id(task)]] = outcome.found
                if not now:
                    self.untested = sum(not self._is_known(task) for task in later)
                    return
                waiting = later

    def _choose_round(self, waiting: Sequence[Task]) -> tuple[list[Task], list[Task]]:
        """What is tested now, and what waits; what is known by now is in neither."""
        left = (self._limit - self._ground.network.runs) // MOST_RUNS
        now, later, busy = list[Task](), list[Task](), set[int]()
        for task in waiting:
            if left <= 0:
                later.append(task)
            elif task.label in busy:
                later.append(task)
                left -= 1
            elif not self._is_known(task):
                now.append(task)
                busy.add(task.label)
                left -= 1
        return now, later

    def _is_known(self, task: Task) -> bool:
        assert task.suspect is not None
        return any(_is_known(self._ground, each, task.suspect) for each in self._proven.values())

    def _count(self, outcome: Outcome) -> None:
        network = self._ground.network
        network.runs, network.seconds = network.runs + outcome.runs, network.seconds + outcome.seconds
        self._ground.matching.seconds += outcome.matching


class _Mover:
    """Moves a bar by the runs of one task after the other, and when one is done to what it was expected to take."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._moved = bar, 0

    def __call__(self, runs: int) -> None:
        self._bar.update(runs)
        self._moved += runs

    def finish(self, worth: int) -> None:
        self._bar.update(worth - self._moved)
        self._moved = 0


def _judge_by_score(task: Task) -> tuple[bool, float]:
    assert task.suspect is not None
    return not task.suspect.copied, -task.suspect.score


def _take_turns(tasks: Sequence[Task]) -> Iterator[Task]:
    """All suspects, those of copied px and the others by turns: neither kind takes all tests."""
    kinds: list[list[Task]] = [[], []]
    for task in tasks:
        kinds[task.suspect is not None and task.suspect.copied].append(task)
    for k in range(max(map(len, kinds))):
        yield from (kind[k] for kind in reversed(kinds) if k < len(kind))


def _is_known(ground: Ground, evidence: Evidence, suspect: Suspect) -> bool:
    """Whether proven evidence accounts for a suspect of the same class: its place, or the places of its carriers."""
    known, kinds = evidence.suspect, (evidence.suspect.cue.kind, suspect.cue.kind)
    if known.label != suspect.label or evidence.verdict == "suspicion":
        return known.label == suspect.label and kinds == ("frame", "frame")
    if kinds != ("patch", "patch"):
        return kinds[0] == kinds[1]
    return accounts_for(ground, known, suspect) or recurs_at(ground, suspect.cue, known.cue, evidence.donors)


def _drop_colours(evidence: Sequence[Evidence]) -> Iterator[Evidence]:
    """The evidence, best first, with one colour of each class."""
    seen = set[int]()
    for each in evidence:
        if each.suspect.cue.kind != "colour" or each.suspect.label not in seen:
            yield each
        if each.suspect.cue.kind == "colour":
            seen.add(each.suspect.label)


def _rank(evidence: Evidence) -> tuple[int, float]:
    return _ORDER.index(evidence.verdict), -min(evidence.pasted.excess, 1.0)
