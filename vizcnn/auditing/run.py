"""One audit from beginning to end: halves, suspects of each class, tests in the order of their scores, sheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn import progress as bars
from vizcnn.auditing.copies import require_scikit_learn
from vizcnn.auditing.network import Margins, Network, ignore
from vizcnn.auditing.proving import Evidence, pick_pictures
from vizcnn.auditing.repeats import find_repeats
from vizcnn.auditing.search import Search
from vizcnn.auditing.statistics import find_smallest_share
from vizcnn.auditing.store import Store
from vizcnn.auditing.suspects import FEWEST_OTHERS, FEWEST_OWN, Ground, Halves
from vizcnn.auditing.tasks import SHOW, draw_stream
from vizcnn.errors import DegenerateResult, ParameterError, ShapeError
from vizcnn.evaluation.asking import make_provenance
from vizcnn.geometry import Box
from vizcnn.inputs.photo import select_channels
from vizcnn.inputs.tensors import check_unit_range
from vizcnn.models.borrowing import borrow
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices
from vizcnn.results import Audit
from vizcnn.results.evidence import AuditedClass, Finding, Pictures, Sheet, find_usual

_AT_ONCE = 64  # images that are averaged
_SHOWN = 6  # images in a row of a sheet
_PAPER = "Adebayo et al. 2022, arXiv:2212.04629"

Labels = npt.NDArray[np.int64]


def audit_images(
    model: Model,
    images: Tensor,
    labels: Labels | Sequence[int] | None = None,
    *,
    per_class: int = 64,
    seed: int = 0,
    progress: bool = True,
    suspicions: bool = False,
    names: Sequence[str] | None = None,
    client: Any = None,
    store: Store | None = None,
) -> Audit:
    """Which classes are recognised by a tag, a frame, a tint? The engine behind `vizcnn.audit`, for tensors.

    images: (N, C, H, W), floats in [0, 1], or bytes, which take a quarter of the memory. labels: the class of each,
        (N,), -1 where unknown; by default the predicted one. Images that the network takes for another class than their
        label are no examples of it, but others are pasted into them. Of images that show the same picture one counts.
    per_class: of how many images of a class one half is searched, and the other tested; those beyond it are tested too.
    seed: of everything random. suspicions: list what tests did not prove too. names: of the images, for the sheets.
    client: a `distributed.Client` whose workers share the classes. store: keeps what is done until all is.

    The same arguments give the same findings, in one go or several, and with any number of workers. Once the network
    has answered for all images as they are, Ctrl-C gives a `partial` result with what was proven until then.
    Raises ParameterError, ShapeError, UnsuitableNetwork, and DegenerateResult where there is only one class.
    """
    require_scikit_learn()
    given = _check(images, labels, per_class, seed, names)
    with borrow(model, "Audit"), torch.no_grad():
        ground, repeats = _lay_ground(model, images, given, per_class, seed, progress)
        search = Search(ground, seed, client, store, progress)
        evidence = [each for each in search.find_evidence() if suspicions or each.verdict != "suspicion"]
        findings, stopped = _make_findings(ground, evidence, names, seed)
        partial = search.partial or stopped
    classes = tuple(_describe_classes(ground, repeats, per_class))
    usual = find_usual(classes)
    return Audit(
        make_provenance(
            model, model.provenance(), "audit", {"per_class": per_class, "suspicions": suspicions}, _PAPER, seed
        ),
        findings,
        classes,
        labelled=given is not None,
        could_find=None if usual is None else usual.could_find,
        images=len(images),
        runs=ground.network.runs / len(images),
        seconds_network=ground.network.seconds,
        seconds_matching=ground.matching.seconds,
        untested=search.untested,
        repeats=tuple((_name(names, int(i)), _name(names, int(repeats[i]))) for i in np.flatnonzero(repeats >= 0)),
        partial=partial,
    )


def _check(
    images: Tensor, labels: Labels | Sequence[int] | None, per_class: int, seed: int, names: Sequence[str] | None
) -> Labels | None:
    if images.dim() != 4 or not len(images):
        raise ShapeError(f"images are (N, C, H, W) with at least one, got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        check_unit_range(images)
    if seed < 0:
        raise ParameterError(f"a seed is 0 or more, got {seed}")
    if per_class < FEWEST_OWN:
        raise ParameterError(f"per_class must be at least {FEWEST_OWN}, for two halves, got {per_class}")
    given = None if labels is None else np.asarray(labels, np.int64)
    for what, held in (("labels", given), ("names", names)):
        if held is not None and len(held) != len(images):
            raise ShapeError(f"there must be one of the {what} for each of {len(images)} images, got {len(held)}")
    return given


def _lay_ground(
    model: Model, images: Tensor, given: Labels | None, per_class: int, seed: int, progress: bool
) -> tuple[Ground, Indices]:
    """The answers to all images as they are, and their halves; and which image each repeats, or -1: (N,).

    Raises ParameterError for labels that are no classes, DegenerateResult where there is a single class."""
    rng = np.random.default_rng(seed)
    with bars.bar(len(images), "answers", "image", shown=progress) as bar:
        network = Network(model, images)
        _check_labels(given, network)
        network.tell = bar.update
        logits = network.read_logits()  # (N, K)
        network.tell = ignore
    predicted = logits.argmax(1)
    labels = predicted if given is None else given
    right = labels == predicted
    groups = [np.flatnonzero(predicted == k) for k in np.unique(predicted)]
    repeats = find_repeats(images, [group[np.argsort(~right[group], kind="stable")] for group in groups])
    classes = np.where(right & (repeats < 0), predicted, -1)
    searched, tested = _split(classes, np.flatnonzero(repeats < 0), per_class, rng)
    if len(np.unique(predicted)) < 2:
        raise DegenerateResult(
            f"{network.model.name} takes all images, {len(predicted)} of them, for one class, and a cue is proven by "
            "pasting it into others. Add images of other classes"
        )
    averages = [_average(network, searched[classes[searched] == k]) for k in np.unique(classes[searched])]
    fill = torch.stack(averages).mean(0) if averages else torch.zeros(network.images.shape[1:])
    halves = Halves(searched, tested, classes, predicted, labels)
    return Ground(network, halves, measure_margins(logits), fill, rng), repeats


def _check_labels(given: Labels | None, network: Network) -> None:
    if given is not None and not (given.min() >= -1 and given.max() < network.classes):
        raise ParameterError(
            f"labels are classes of {network.model.name}, 0 to {network.classes - 1}, or -1 where unknown, got "
            f"{given.min()} to {given.max()}"
        )


def _split(classes: Labels, usable: Indices, per_class: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Two halves of each class with enough images: one to search, and one, with all beyond `per_class`, to test.

    Other usable images, of small classes or taken for another one, are there to be pasted into."""
    searched, tested = [], []
    for label in np.unique(classes[classes >= 0]):
        own = rng.permutation(np.flatnonzero(classes == label))
        if len(own) >= FEWEST_OWN:
            cut = min(len(own), per_class) // 2
            searched.append(own[:cut])
            tested.append(own[cut:])
    others = rng.permutation(np.setdiff1d(usable, np.concatenate([*searched, *tested, np.empty(0, np.int64)])))
    halves = ([*searched, others[::2]], [*tested, others[1::2]])
    first, second = (np.concatenate(half).astype(np.int64) for half in halves)
    return first, second


def _average(network: Network, indices: Indices) -> Tensor:
    """The mean of these images, (C, H, W)."""
    total = torch.zeros(network.images.shape[1:])
    for part in np.array_split(indices, -(-len(indices) // _AT_ONCE)):
        total += network.take(part).float().cpu().sum(0)
    return total / len(indices)


def measure_margins(logits: Margins) -> Margins:
    """The margin of every class, (N, K), from the logits (N, K)."""
    rows = torch.from_numpy(logits)
    winners = rows.argmax(1, keepdim=True)  # (N, 1)
    second = rows.scatter(1, winners, -torch.inf).amax(1, keepdim=True)  # (N, 1)
    rivals = rows.gather(1, winners).expand_as(rows).scatter(1, winners, second)  # the largest other logit, (N, K)
    return np.asarray((rows - rivals).numpy())


def _make_findings(
    ground: Ground, evidence: Sequence[Evidence], names: Sequence[str] | None, seed: int
) -> tuple[tuple[Finding, ...], bool]:
    """A finding for each piece of evidence, and whether Ctrl-C came: unless it comes twice, all get their sheets."""
    made, stopped = list[Finding](), False
    for number, each in enumerate(evidence):
        own = replace(ground, rng=draw_stream(seed, SHOW, each.suspect.label, number))
        try:
            made.append(_make_finding(own, each, names))
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            made.append(_make_finding(own, each, names))
    return tuple(made), stopped


def _make_finding(ground: Ground, evidence: Evidence, names: Sequence[str] | None) -> Finding:
    suspect, carriers, model = evidence.suspect, evidence.carriers, ground.network.model
    assert evidence.verdict != "dismissed"
    return Finding(
        kind=evidence.verdict,
        label=model.class_name(suspect.label),
        index=suspect.label,
        cue=suspect.cue.kind,
        box=Box(*suspect.cue.place),
        thickness=getattr(suspect.cue, "thickness", 0),
        carriers=len(carriers.spots),
        tested=evidence.tested,
        share_inside=carriers.share_inside,
        share_outside=carriers.share_outside,
        likeness=carriers.likeness,
        copies=carriers.copies,
        pasted=evidence.pasted,
        removed=evidence.removed,
        usual=evidence.usual,
        sheet=_make_sheet(ground, evidence, names),
    )


def _make_sheet(ground: Ground, evidence: Evidence, names: Sequence[str] | None) -> Sheet:
    network, cue = ground.network, evidence.suspect.cue
    donors, others, rows = pick_pictures(ground, evidence, _SHOWN)
    answers = {name: _name_answers(network, images) for name, images in rows.items()}
    shown = {name: _to_pictures(network, images) for name, images in rows.items()}
    boxes = [Box(*cue.locate(corner)) for _, corner in donors]
    return Sheet(
        carriers=shown["carriers"],
        removed=shown["removed"],
        others=shown["others"],
        pasted=shown["pasted"],
        controls=shown["controls"],
        names=tuple(_name(names, i) for i, _ in donors),
        boxes=tuple(boxes),
        pasted_boxes=tuple(boxes[i % len(boxes)] for i in range(len(others))),
        carriers_answers=answers["carriers"],
        removed_answers=answers["removed"],
        others_answers=answers["others"],
        pasted_answers=answers["pasted"],
        controls_answers=answers["controls"],
    )


def _name(names: Sequence[str] | None, image: int) -> str:
    return names[image] if names else f"image {image}"


def _to_pictures(network: Network, images: Tensor) -> Pictures:
    """Images (n, C, H, W) as they are drawn: (n, H, W, 3) or (n, H, W, 1)."""
    shown = select_channels(images.permute(0, 2, 3, 1).numpy(), network.model.input.display)
    return np.ascontiguousarray(shown, np.float32)


def _name_answers(network: Network, images: Tensor) -> tuple[str, ...]:
    """The class that the network sees in each of the images (n, C, H, W)."""
    logits = network.read_logits_of(images)
    return tuple(network.model.class_name(int(k)) for k in logits.argmax(1))


def _describe_classes(ground: Ground, repeats: Indices, per_class: int) -> Iterator[AuditedClass]:
    """The classes that images are of, with the share of each in which a cue could be proven."""
    halves = ground.halves
    for label in np.unique(halves.labels[halves.labels >= 0]):
        count = int((halves.classes == label).sum())
        enough = count >= FEWEST_OWN and all(
            len(halves.pick_others(half, int(label))) >= FEWEST_OTHERS for half in (halves.searched, halves.tested)
        )
        share = find_smallest_share(count, min(count, per_class) // 2) if enough else None
        given = int(((halves.labels == label) & (repeats < 0)).sum())
        yield AuditedClass(ground.network.model.class_name(int(label)), int(label), count, given, share)
