"""Evaluating: how far anyone's maps of one image can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from vizcnn.errors import DegenerateResult, ParameterError, did_you_mean
from vizcnn.evaluation.asking import Asked, ask
from vizcnn.evaluation.cells import Maps
from vizcnn.evaluation.contrast import choose_contrast
from vizcnn.evaluation.coverings import Coverings, cover_image
from vizcnn.evaluation.judging import check_map, excuse_likeness, judge_map
from vizcnn.evaluation.reading import (
    check_explained,
    check_named,
    check_photo,
    fit_map,
    read_map,
    split_heatmap,
)
from vizcnn.evaluation.steadiness import measure_steadiness
from vizcnn.models.borrowing import add_context
from vizcnn.models.model import Model
from vizcnn.models.scoring import score_batches
from vizcnn.models.targets import Target
from vizcnn.models.terms import Unit
from vizcnn.models.threads import check_seed
from vizcnn.occlusion.windows import check_fill, make_baseline
from vizcnn.results import Heatmap, Trust

_ALONE = ""  # the name of a map that was given without one


@overload
def evaluate(
    model: Model,
    image: Any,
    maps: Mapping[str, Any] | Heatmap,
    target: Any = ...,
    *,
    contrast: Any = ...,
    steadiness: Any = ...,
    completeness: Any = ...,
    fill: str = ...,
    seed: int = ...,
    batch: int | None = ...,
    progress: bool = ...,
) -> dict[str, Trust]: ...


@overload
def evaluate(
    model: Model,
    image: Any,
    maps: ArrayLike | Tensor,
    target: Any = ...,
    *,
    contrast: Any = ...,
    steadiness: Any = ...,
    completeness: Any = ...,
    fill: str = ...,
    seed: int = ...,
    batch: int | None = ...,
    progress: bool = ...,
) -> Trust: ...


def evaluate(
    model: Model,
    image: Any,
    maps: Any,
    target: Any = None,
    *,
    contrast: Any = None,
    steadiness: Any = None,
    completeness: Any = None,
    fill: str = "blur",
    seed: int = 0,
    batch: int | None = None,
    progress: bool = True,
) -> Trust | dict[str, Trust]:
    """How far maps of one image can be believed, whoever made them: vizcnn, captum, a colleague with a pen.

    Parts of the image are covered, each cell of a grid of 6 x 6 alone and then 64 random halves of the cells: 101 runs
    of the network, with that of the image as it is, for all maps together. Then, for each map,

        need = (rho(cells alone) + rho(halves)) / 2

    where rho is Spearman's rank correlation between how much of the map lies in what was covered and how much of its
    score the target lost. A Trust says how many of 100 maps that know nothing (the map's own spectrum with random
    phases, the map moved and turned, blobs near the middle) find less well what the network needs. That takes no run.

        >>> import vizcnn
        >>> model, image = vizcnn.load("tiny"), "sample:grace_hopper"
        >>> def explain(target):
        ...     return vizcnn.Saliency(method="integrated-gradients")(model, image, target).values[0, 0]
        >>> index = model.class_index("military uniform")
        >>> trust = vizcnn.evaluate(model, image, explain(index), index, contrast=explain)
        >>> trust.runs, trust.verdict in ("supported", "weakly supported")
        (101, True)

    image: one image, as a probe takes it. The network is borrowed for the runs, and left as it was.
    maps: an array or tensor (H, W), (1, H, W) or (1, 1, H, W) of real numbers, which spans what the network sees of the
        image, at any resolution; higher where more speaks for the target. Or a mapping from names to such maps, or a
        Heatmap of this image, whose targets name its maps. A Heatmap of one target is also taken in place of an array.
    target: what the maps explain; by default what the Heatmap does, or the class predicted.
    contrast: the same method's map for a class that the network did not choose, or a function that makes it. The
        function is called with the index of a class, as captum's `target` takes it: of the class of middling rank among
        the others. The second best may share evidence with the target, and the last may be its opposite. Without
        contrast nothing is called supported: a map of the image's edges can find what the network needs.
    steadiness: a function that makes the same method's map of an image, a tensor (1, C, H, W) in [0, 1] as the model
        takes it. It is called once, with the image moved down and to the right, by 1/56 of its shorter side.
    completeness: for a map that should add up to f(image) - f(baseline), the baseline: an image (C, H, W) in [0, 1], or
        a fill such as `black` or `model`. Only where it is given, and once more for each such map the network runs.
    For maps with names, contrast, steadiness and completeness are mappings by the same names, some of which may be
    missing; for a Heatmap also what all of its maps share, and for its contrast a Heatmap of as many others. Functions
    are called when the network has been given back: with the network as the person has it.
    fill: what covers, as for occlusion. seed: of the halves and the random maps. batch: images per run.

    Returns a Trust, or one for each name. What the figures cannot say is in `docs/trust.md`.
    Papers: Samek et al. 2017, arXiv:1509.06321 (covering in a map's order); Petsiuk et al. 2018, arXiv:1806.07421
    (random parts covered at once); Adebayo et al. 2018, arXiv:1810.03292 (maps that depend on neither class nor
    network).
    Raises ParameterError, ShapeError (a map that spans something else), TargetError, NonFiniteResult, DegenerateResult
    (a map that is even all over, a target that no covering changes)."""
    check_fill("evaluate: fill", fill)
    check_seed("evaluate", seed)
    given = _collect(maps, {"contrast": contrast, "steadiness": steadiness, "completeness": completeness})
    if target is None and isinstance(maps, Heatmap):
        target = list(maps.provenance.target_specs[0])
    with ask("evaluate", model, image, target) as asked:
        cases = [*_make_cases(asked, given, maps)]
        coverings = cover_image(
            model,
            asked.image,
            asked.targets,
            asked.scores,
            largest=asked.largest,
            fill=fill,
            seed=seed,
            batch=batch,
            layout=asked.clean.layout,
            shown=progress,
        )
        baselines = [_measure_missing(asked, case) for case in cases]
    found = {}
    for case, missing in zip(cases, baselines, strict=True):
        with add_context(f"evaluate on {model.name}"), _name_map(case.name):
            found[case.name] = replace(_judge(asked, case, coverings, seed), missing=missing)
    return found[_ALONE] if set(found) == {_ALONE} else found


@dataclass(frozen=True)
class _Given:
    """What a person gave for one map, by the options' names where they are given."""

    name: str
    map: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Case(_Given):
    """The same, checked. t: the number of the target. values: the map as it was given. fitted: as fine as the input."""

    t: int = 0
    values: Maps = field(kw_only=True)
    fitted: Maps = field(kw_only=True)


def _collect(maps: Any, options: Mapping[str, Any]) -> list[_Given]:
    """The maps by name, each with the options that are given for it. Raises ParameterError."""
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(maps, Heatmap):
        parts = split_heatmap(maps)
        names, values = [*maps.provenance.targets[0]], [*parts]
    elif isinstance(maps, Mapping):
        names, values = [*check_named(maps)], [*maps.values()]
    else:
        return [_Given(_ALONE, maps, given)]
    shared = {key: _share(key, value, names, is_heatmap=isinstance(maps, Heatmap)) for key, value in given.items()}
    return [
        _Given(name, one, {key: by_name[name] for key, by_name in shared.items() if name in by_name})
        for name, one in zip(names, values, strict=True)
    ]


def _share(key: str, value: Any, names: list[str], *, is_heatmap: bool) -> Mapping[str, Any]:
    """By the maps' names what was given for them. Raises ParameterError.

    is_heatmap: the maps are a Heatmap's, which share what is given for all; of another Heatmap each gets its map."""
    if isinstance(value, Mapping):
        for name in value:
            if name not in names:
                raise ParameterError(f"{key} names {name!r}, and there is no such map.{did_you_mean(str(name), names)}")
        return value
    if not is_heatmap:
        raise ParameterError(f"{key} of maps with names is a mapping by the same names, got {type(value).__name__}")
    if isinstance(value, Heatmap):
        return dict(zip(names, split_heatmap(value, len(names)), strict=True))
    return dict.fromkeys(names, value)


def _make_cases(asked: Asked, given: list[_Given], maps: Any) -> Iterator[_Case]:
    """The maps, read and checked. Raises ParameterError for maps of other images, targets or classes."""
    if isinstance(maps, Heatmap):
        check_explained(maps, asked.targets)
    elif len(asked.targets) != 1:
        raise ParameterError(f"the maps explain one target, got {len(asked.targets)}. Call it for each of them")
    for i, one in enumerate(given):
        with _name_map(one.name):
            t = i if isinstance(maps, Heatmap) else 0
            check_photo(one.map, asked.photo)
            values = read_map(one.map)
            if isinstance(one.map, Heatmap):
                check_explained(one.map, asked.targets[t : t + 1])
            _check_options(one.options, asked, t)
            fitted = check_map(fit_map(values, asked.size, asked.photo, asked.seen), (1, 1))
            yield _Case(one.name, one.map, one.options, t, values=values, fitted=fitted)


def _check_options(options: Mapping[str, Any], asked: Asked, t: int) -> None:
    """Raise ParameterError for what no map of another class, and no function, can be."""
    contrast, explain = options.get("contrast"), options.get("steadiness")
    if not (explain is None or callable(explain)):
        raise ParameterError(f"steadiness is a function from an image to a map, got {type(explain).__name__}")
    with add_context("contrast"):
        if isinstance(contrast, Heatmap):
            check_photo(contrast, asked.photo)
            split_heatmap(contrast, 1)
            if contrast.provenance.target_specs[0][0] == asked.targets[t].spec:
                raise ParameterError(
                    f"it explains {asked.targets[t]}, as the map does. Give the method's map for another class"
                )
        elif not (contrast is None or callable(contrast)):
            fit_map(read_map(contrast), asked.size, asked.photo, asked.seen)


@contextmanager
def _name_map(name: str) -> Iterator[None]:
    """Say of which map an error is, where it has a name."""
    with add_context(f"map {name!r}" if name else ""):
        yield


def _judge(asked: Asked, case: _Case, coverings: Coverings, seed: int) -> Trust:
    """The Trust of one map. Calls the person's functions."""
    other, what, note = _find_contrast(asked, case, coverings)
    trust = judge_map(
        case.fitted, coverings, case.t, contrast=other, contrast_target=what, contrast_note=note, seed=seed
    )
    if asked.output is not None and asked.output.shape == (2,) and case.values.min() >= 0:
        trust = excuse_likeness(trust)
    explain = case.options.get("steadiness")
    if explain is None:
        return trust

    def make_map(image: Tensor) -> Maps:
        with add_context("steadiness"):
            return check_map(
                fit_map(read_map(explain(image)), asked.size, asked.photo, asked.seen), (1, 1), is_even=True
            )

    return replace(trust, steadiness=measure_steadiness(case.fitted, asked.image, make_map))


def _find_contrast(asked: Asked, case: _Case, coverings: Coverings) -> tuple[Maps | None, str, str]:
    """The map of another class, the name of this class, and why there is no such map."""
    given = case.options.get("contrast")
    if given is None:
        return None, "", "no map of another class was given"
    name = given.provenance.targets[0][0] if isinstance(given, Heatmap) else ""
    if callable(given):
        other = choose_contrast(asked.model, asked.targets[case.t], asked.output)
        if isinstance(other, str):
            return None, "", other
        if other.terms[0][0] < 0:
            return None, "", f"{asked.targets[case.t]} is the opposite of a class"
        name, given = str(other), _call_with_class(given, other)
    with add_context("contrast"):
        values = fit_map(read_map(given), asked.size, asked.photo, asked.seen)
        return check_map(values, coverings.grid, is_even=True), name, ""


def _call_with_class(explain: Callable[[int], Any], target: Target) -> Any:
    """What the person's function makes of a class, which it gets by its index."""
    ((_, unit),) = target.terms
    assert isinstance(unit, Unit)
    return explain(int(unit.channel))


def _measure_missing(asked: Asked, case: _Case) -> float | None:
    """What the map's sum lacks of the difference that it should add up to, as a share of that. One run."""
    given = case.options.get("completeness")
    if given is None:
        return None
    with _name_map(case.name), add_context("completeness"):
        baseline = _read_baseline(asked, given)  # (C, H, W)
        target = asked.targets[case.t]
        ((_, scores),) = score_batches(
            asked.model, lambda _: baseline[None], np.zeros(1, np.int64), [target], batch=1,
            layout=torch.contiguous_format, shown=False,
        )  # fmt: skip
        change = float(asked.scores[case.t] - scores[0, 0])
        rounding = 16 * torch.finfo(baseline.dtype).eps * max(abs(float(scores[0, 0])), asked.largest)
        if abs(change) <= rounding:
            raise DegenerateResult(
                f"{target} scores the same for the baseline as for the image, so there is nothing to add up to. Take "
                "another baseline"
            )
        return 1 - float(case.values.sum()) / change


def _read_baseline(asked: Asked, given: Any) -> Tensor:
    """The baseline as an input (C, H, W). Raises ParameterError."""
    if isinstance(given, str):
        if given == "blur":
            raise ParameterError("blur can be stronger or weaker. Give the blurred image itself, (C, H, W)")
        check_fill("evaluate: completeness", given)
        return make_baseline(given, asked.image, asked.model.input.mean, asked.size)
    values = torch.as_tensor(given)
    own = values[0] if values.dim() == 4 and len(values) == 1 else values
    if own.shape != asked.image.shape:
        raise ParameterError(
            f"a baseline is a fill or an image {tuple(asked.image.shape)} in [0, 1], got {tuple(values.shape)}"
        )
    return own.detach().to(asked.image)
