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
from vizcnn.evaluation.cells import Maps, choose_finest, compare, sum_cells
from vizcnn.evaluation.coverings import Coverings
from vizcnn.evaluation.judging import excuse_likeness, judge_map
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

Values = npt.NDArray[np.float32]

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
    """One method's map for the answer, judged; of occlusion also that of the answer less its rival."""
    if probe.needs_network and question.model.is_black_box:
        return Judged((), ((name, "a black box shows its answers alone"),), None)
    try:
        found = _Found.ask(question, probe)
        return Judged((_judge(question, name, found, coverings),), (), _judge_difference(question, found, coverings))
    except VizcnnError as error:
        return Judged((), ((name, error.fact),), None)


@dataclass(frozen=True)
class _Found:
    """The maps that one call of a probe gives for a question, float32 (H, W) each.

    contrast: of the class that was not chosen; zeros where the method gives it no map. apart: of the answer less its
    rival; None where it is not asked for, or is the same for both."""

    heatmap: Heatmap
    contrast: Values | None
    apart: Values | None

    @property
    def values(self) -> Values:
        values: Values = self.heatmap.values[0, 0]
        return values

    @classmethod
    def ask(cls, question: Question, probe: Probe[Heatmap]) -> _Found:
        """Ask for all maps at once, which then share their runs, and without one that cannot be made. Raises
        VizcnnError where the answer itself has none."""
        contrast = question.contrast if isinstance(question.contrast, Target) else None
        apart = question.answer - question.rival if isinstance(probe, Occlusion) else None
        others = [one for one in (contrast, apart) if one]
        for chosen in (others, others[:1], others[1:], []):
            try:
                found = _call(question, probe, [question.answer, *chosen])
                break
            except DegenerateResult:
                if not chosen:
                    raise
        maps = dict(zip(chosen, found.values[0, 1:], strict=True))
        none = np.zeros_like(found.values[0, 0])
        return cls(found, maps.get(contrast, none) if contrast else None, maps.get(apart) if apart else None)


def _call(question: Question, probe: Probe[Heatmap], targets: list[Target]) -> Heatmap:
    image, subject = question.image[None], question.subject  # (1, C, H, W)
    return probe(question.model, image, targets, seed=subject.seed, progress=subject.progress, strict=True)


def _judge(question: Question, name: str, found: _Found, coverings: Coverings) -> Evidence:
    contrast, values, heatmap = question.contrast, found.values, found.heatmap
    trust = judge_map(
        values,
        coverings,
        contrast=found.contrast,
        contrast_target="" if isinstance(contrast, str) else str(contrast),
        contrast_note=contrast if isinstance(contrast, str) else "",
        seed=question.subject.seed,
    )
    if len(question.output) == 2 and not heatmap.signed:
        trust = excuse_likeness(trust)
    place = _find_place(question, values)
    return Evidence(name, heatmap.meanings[0], values, heatmap.signed, heatmap.percentile, trust, place)


def _judge_difference(question: Question, found: _Found, coverings: Coverings) -> Evidence | None:
    """What speaks for the answer rather than its rival. Its contrast: what speaks for a third class rather than that
    rival, which is a difference of maps, as these are means of what targets lose."""
    if found.apart is None:
        return None
    third = None
    if found.contrast is not None and question.contrast != question.rival:
        third = found.contrast - found.values + found.apart
    try:
        trust = judge_map(
            found.apart,
            replace(coverings, drops=coverings.drops[:, :1] - coverings.drops[:, 1:]),
            contrast=third,
            contrast_target="" if third is None else f"{question.contrast} rather than {question.rival}",
            contrast_note="there is no third class" if third is None else "",
            seed=question.subject.seed,
        )
    except DegenerateResult:  # the same map for both
        return None
    place, meaning = _find_place(question, found.apart), found.heatmap.meanings[0]
    return Evidence("Occlusion", f"difference of: {meaning}", found.apart, True, 100.0, trust, place)


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
    grid = choose_finest(values.shape)
    means = sum_cells(values, grid) / sum_cells(np.ones_like(values), grid)  # cells may differ by a row of px
    ranks: Maps = ((rankdata(means) - 1) / max(1, means.size - 1)).reshape(grid)
    return ranks


def _find_place(question: Question, values: Values, share: float = 0.8) -> str:
    """Where a map of any size that spans the image is highest, in words; "" for nowhere."""
    box = find_peak(torch.from_numpy(values), share)
    if box is None:
        return ""
    height, width = question.subject.size
    onto = Box(0, 0, height, width)
    return question.subject.place(0, question.subject.in_photo(0, box.map_onto(values.shape, onto)))
