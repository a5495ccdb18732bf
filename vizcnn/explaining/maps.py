"""Maps of several methods for one question, each judged from the same coverings, and where they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from vizcnn.errors import DegenerateResult, VizcnnError
from vizcnn.evaluation.cells import Maps, compare, sum_cells
from vizcnn.evaluation.coverings import Coverings
from vizcnn.evaluation.judging import judge_map
from vizcnn.explaining.question import Question
from vizcnn.geometry import Box
from vizcnn.models.targets import Target
from vizcnn.probes.cam import Cam
from vizcnn.probes.occlusion import Occlusion
from vizcnn.probes.rise import Rise
from vizcnn.probes.saliency import Saliency
from vizcnn.probing.attribution import find_peak
from vizcnn.probing.probe import Probe
from vizcnn.results import Consensus, Evidence, Heatmap

_FINEST = 24  # cells along a side: coverings tell no finer parts apart
_HIGHEST = 0.9  # the share of the highest rank that belongs to the place of a consensus


@dataclass(frozen=True)
class Effort:
    """How much each method runs.

    strides: of occlusion, so many in a window. steps: of integrated gradients. masks: of rise, none for no map."""

    strides: int
    steps: int
    masks: int

    def list_methods(self, size: tuple[int, int]) -> list[tuple[str, Probe[Heatmap], int, bool]]:
        """Each method's name, its probe, the runs that one map of a target costs, and whether the runs are shared by
        all targets of an image."""
        window = max(1, round(min(size) / 5))
        stride = max(1, window // self.strides)
        down, across = (-(-(length - window) // stride) + 1 for length in size)
        return [
            ("Occlusion", Occlusion(stride=stride), down * across, True),
            ("Grad-CAM", Cam(), 3, False),
            ("Integrated gradients", Saliency(method="integrated-gradients", steps=self.steps), 3 * self.steps, False),
            *([("RISE", Rise(masks=self.masks), self.masks, True)] if self.masks else []),
        ]


@dataclass(frozen=True)
class Judged:
    """The maps that could be made, why others could not, and that of the answer less its rival."""

    maps: tuple[Evidence, ...]
    left_out: tuple[tuple[str, str], ...]
    rather: Evidence | None


def make_map(question: Question, name: str, probe: Probe[Heatmap], coverings: Coverings) -> Judged:
    """One method's map for the answer, judged. Where it compares runs, also that of the answer less its rival, which is
    the difference of two maps: both are means of what targets lose."""
    if probe.needs_network and question.model.is_black_box:
        return Judged((), ((name, "a black box shows its answers alone"),), None)
    contrast = question.contrast if isinstance(question.contrast, Target) else None
    targets = [question.answer, *([contrast] if contrast else [])]
    if isinstance(probe, Occlusion) and question.rival not in targets:
        targets.append(question.rival)
    try:
        found = _call(question, probe, targets)
        evidence = _judge(question, name, found, targets, coverings)
    except VizcnnError as error:
        return Judged((), ((name, str(error)),), None)
    rather = _compare_rival(question, found, targets, coverings) if isinstance(probe, Occlusion) else None
    return Judged((evidence,), (), rather)


def _call(question: Question, probe: Probe[Heatmap], targets: list[Target]) -> Heatmap:
    """The maps of the targets; of the answer alone where another has none. `targets` is then cut."""
    image, subject = question.image[None], question.subject  # (1, C, H, W)

    def call() -> Heatmap:
        return probe(question.model, image, [*targets], seed=subject.seed, progress=subject.progress, strict=True)

    try:
        return call()
    except DegenerateResult:
        if len(targets) == 1:
            raise
        del targets[1:]
        return call()


def _judge(
    question: Question, name: str, found: Heatmap, targets: Sequence[Target], coverings: Coverings
) -> Evidence:
    contrast = question.contrast
    note = contrast if isinstance(contrast, str) else ""
    has_contrast = isinstance(contrast, Target) and contrast in targets
    if isinstance(contrast, Target) and not has_contrast:
        note = f"the method gives no map of {contrast}"
    trust = judge_map(
        found.values[0, 0],
        coverings,
        contrast=found.values[0, targets.index(contrast)] if isinstance(contrast, Target) and has_contrast else None,
        contrast_target=str(contrast) if has_contrast else "",
        contrast_note=note,
        seed=question.subject.seed,
    )
    place = _find_place(question, found.values[0, 0])
    return Evidence(name, found.meanings[0], found.values[0, 0], found.signed, found.percentile, trust, place)


def _compare_rival(
    question: Question, found: Heatmap, targets: Sequence[Target], coverings: Coverings
) -> Evidence | None:
    """What speaks for the answer rather than its rival. Its contrast: what speaks for a class that was not chosen."""
    if question.rival not in targets:
        return None
    rival, contrast = found.values[0, targets.index(question.rival)], question.contrast
    values = found.values[0, 0] - rival  # (H, W)
    apart = replace(coverings, drops=coverings.drops[:, :1] - coverings.drops[:, 1:])
    has_third = isinstance(contrast, Target) and contrast != question.rival and contrast in targets
    try:
        trust = judge_map(
            values,
            apart,
            contrast=found.values[0, targets.index(contrast)] - rival  # type: ignore[arg-type]
            if has_third
            else None,
            contrast_target=f"{contrast} rather than {question.rival}" if has_third else "",
            contrast_note="" if has_third else "there is no third class",
            seed=question.subject.seed,
        )
    except DegenerateResult:  # the same map for both
        return None
    meaning = f"{question.subject.quantity(0)} of the answer less that of its rival, lost when covered"
    return Evidence("Occlusion", meaning, values, True, 100.0, trust, _find_place(question, values))


def find_consensus(question: Question, maps: Sequence[Evidence]) -> Consensus | None:
    """Where the supported maps agree: the mean of their ranks over cells. None where fewer than two are supported."""
    supported = [one for one in maps if one.is_supported]
    if len(supported) < 2:
        return None
    ranks = np.mean([rank_cells(one.values.astype(np.float64)) for one in supported], 0).astype(np.float32)  # (h, w)
    pairs = [compare(a.values.astype(np.float64), b.values.astype(np.float64)) for a, b in combinations(supported, 2)]
    place = _find_place(question, ranks, _HIGHEST)
    return Consensus(tuple(one.method for one in supported), ranks, float(np.mean(pairs)), place)


def rank_cells(values: Maps) -> Maps:
    """The ranks of a map (H, W) over 24 x 24 cells, or as many as fit, from 0 to 1: float64 (h, w)."""
    grid = (min(_FINEST, values.shape[0]), min(_FINEST, values.shape[1]))
    means = sum_cells(values, grid) / sum_cells(np.ones_like(values), grid)  # cells may differ by a row of px
    ranks: Maps = ((rankdata(means) - 1) / max(1, means.size - 1)).reshape(grid)
    return ranks


def _find_place(question: Question, values: npt.NDArray[np.float32], share: float = 0.8) -> str:
    """Where a map of any size that spans the image is highest, in words; "" for nowhere."""
    box = find_peak(torch.from_numpy(values), share)
    if box is None:
        return ""
    height, width = question.subject.size
    onto = Box(0, 0, height, width)
    return question.subject.place(0, question.subject.in_photo(0, box.map_onto(values.shape, onto)))  # type: ignore[arg-type]
