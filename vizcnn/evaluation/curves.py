"""Curves: a target's score while an image is deleted, or inserted, in the order of a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import DegenerateResult, ParameterError, ShapeError
from vizcnn.evaluation.asking import Asked, ask
from vizcnn.evaluation.cells import Maps, measure_areas, sum_cells
from vizcnn.evaluation.coverings import make_cover
from vizcnn.evaluation.judging import check_map
from vizcnn.evaluation.nulls import make_middle
from vizcnn.evaluation.reading import check_explained, check_named, check_photo, fit_map, read_map
from vizcnn.models.borrowing import add_context
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, Scores, differ, score_batches
from vizcnn.models.threads import check_seed
from vizcnn.occlusion.windows import check_fill
from vizcnn.results import Curve, Heatmap

Orders = npt.NDArray[np.int64]
"""(orders, cells): the numbers of the cells, that which comes first at the front."""


def delete(
    model: Model,
    image: Any,
    maps: Any,
    target: Any = None,
    *,
    grid: int = 8,
    steps: int = 16,
    orders: int = 8,
    fill: str = "blur",
    seed: int = 0,
    batch: int | None = None,
    progress: bool = True,
) -> Curve:
    """The target's score while more and more of the image is covered, what a map holds highest first.

    A map that finds what the network needs makes the score fall early: the smaller the area under its line, the
    better. How early is early depends on the image, so the lines of random orders (their mean) and of the order from
    the centre outwards, where photographs have their objects, stand beside.

        >>> import vizcnn
        >>> model, image = vizcnn.load("tiny"), "sample:grace_hopper"
        >>> result = vizcnn.Occlusion()(model, image, "military uniform")
        >>> curve = vizcnn.evaluation.delete(model, image, result, "military uniform")
        >>> curve.names
        ('the map', 'random orders', 'centre first')
        >>> bool(curve.areas[0] < curve.areas[1])
        True

    image, maps, target: as for `vizcnn.evaluate`; maps by name have a line each.
    grid: the image is cut into so many cells along each side, or as many as it has px. A cell's place in the order is
        by the map's mean in it; cells of the same mean are in random order.
    steps: so many times some cells more are covered. orders: random ones, of which the mean is drawn.
    fill: what covers, as for occlusion. seed: of the random orders. batch: images per run.
    Runs: (maps + orders + 1) x (steps - 1) + 2.

    An area compares maps of one image and target, and no images or networks: a score may also fall because the network
    has never seen the like of what is left.
    Papers: Samek et al. 2017, arXiv:1509.06321; Petsiuk et al. 2018, arXiv:1806.07421.
    Raises ParameterError, ShapeError, TargetError, NonFiniteResult, DegenerateResult (a map that is even all over, a
    target that nothing changes)."""
    plan = _Plan("delete", grid, steps, orders, fill, seed, batch, progress)
    return _draw_curve(plan, model, image, maps, target)


def insert(
    model: Model,
    image: Any,
    maps: Any,
    target: Any = None,
    *,
    grid: int = 8,
    steps: int = 16,
    orders: int = 8,
    fill: str = "blur",
    seed: int = 0,
    batch: int | None = None,
    progress: bool = True,
) -> Curve:
    """The target's score while more and more of a covered image is shown, what a map holds highest first.

    A map that finds what suffices for the network makes the score rise early: the larger the area under its line, the
    better. All else is as for `delete`.

        >>> import vizcnn
        >>> model, image = vizcnn.load("tiny"), "sample:grace_hopper"
        >>> result = vizcnn.Occlusion()(model, image, "military uniform")
        >>> curve = vizcnn.evaluation.insert(model, image, result, "military uniform")
        >>> bool(curve.areas[0] > curve.areas[1])
        True

    Paper: Petsiuk et al. 2018, arXiv:1806.07421."""
    plan = _Plan("insert", grid, steps, orders, fill, seed, batch, progress)
    return _draw_curve(plan, model, image, maps, target)


_PAPERS = {"delete": "Samek et al. 2017, arXiv:1509.06321", "insert": "Petsiuk et al. 2018, arXiv:1806.07421"}


@dataclass(frozen=True)
class _Plan:
    """What is done to an image. The fields are the options of `delete`, of the same names."""

    kind: Literal["delete", "insert"]
    grid: int
    steps: int
    orders: int
    fill: str
    seed: int
    batch: int | None
    progress: bool

    def __post_init__(self) -> None:
        check_fill(f"{self.kind}: fill", self.fill)
        check_seed(self.kind, self.seed)
        for name, value, least in (("grid", self.grid, 2), ("steps", self.steps, 1), ("orders", self.orders, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ParameterError(f"{self.kind}: {name} must be a whole number of at least {least}, got {value!r}")

    @property
    def options(self) -> dict[str, Any]:
        """For the provenance."""
        return {"grid": self.grid, "steps": self.steps, "orders": self.orders, "fill": self.fill}

    @property
    def done(self) -> str:
        """What has become of a part of the image."""
        return "deleted" if self.kind == "delete" else "inserted"


def _draw_curve(plan: _Plan, model: Model, image: Any, maps: Any, target: Any) -> Curve:
    """The curve with a line for each map, and those of random orders and the order from the centre outwards."""
    if target is None and isinstance(maps, Heatmap):
        target = list(maps.provenance.target_specs[0])
    with ask(plan.kind, model, image, target) as asked:
        if len(asked.targets) != 1:
            raise ParameterError(f"a curve is of one target, got {len(asked.targets)}. Call it for each of them")
        named = {name: _read(asked, one, name) for name, one in _name_maps(maps).items()}
        cells = (min(plan.grid, asked.size[0]), min(plan.grid, asked.size[1]))
        count = cells[0] * cells[1]
        if count < 2:
            raise ShapeError(
                f"the input is {asked.size[0]} x {asked.size[1]} px, of which no part can be covered first"
            )
        counts = np.unique(np.linspace(0, count, plan.steps + 1).round().astype(np.int64))  # (P,)
        x, orders = 100 * counts / count, _choose_orders([*named.values()], cells, plan)
        scores = _score_orders(plan, asked, orders, cells, counts)  # (orders, P)
        own, random, centre = scores[: len(named)], scores[len(named) : -1], scores[-1:]
        curve = Curve(
            asked.provenance(plan.kind, plan.options, _PAPERS[plan.kind], plan.seed),
            x=x,
            lines=np.concatenate([own, random.mean(0, keepdims=True), centre]),
            names=(*named, "random orders", "centre first"),
            x_name=f"share of the image {plan.done}",
            x_unit="%",
            y_name=asked.clean.name_quantity(asked.targets[0].quantity),
            title=f"{asked.targets[0]} while {asked.photo.name} is {plan.done}",
        )
    areas = replace(curve, lines=scores, names=tuple(map(str, range(len(scores))))).areas
    return replace(curve, findings=tuple(_describe(plan, i, name, areas, len(named)) for i, name in enumerate(named)))


def _describe(plan: _Plan, i: int, name: str, areas: Scores, maps: int) -> str:
    """How the area of map i compares with those of the random orders, and of that from the centre outwards.

    areas: of all orders, those of the maps first, then the random ones, the centre's last."""
    own, random, centre = areas[i], areas[maps:-1], areas[-1]
    good = "smaller" if plan.kind == "delete" else "larger"
    better = own < random if plan.kind == "delete" else own > random
    beside = "as large as" if own == centre else "larger than" if own > centre else "smaller than"
    return (
        f"{name}: the area is {good} than that of {int(better.sum())} of {len(random)} random orders, and {beside} "
        f"that of the order from the centre outwards; the {good}, the better"
    )


def _name_maps(maps: Any) -> Mapping[str, Any]:
    return check_named(maps) if isinstance(maps, Mapping) else {"the map": maps}


def _read(asked: Asked, given: Any, name: str) -> Maps:
    with add_context(f"map {name!r}" if name != "the map" else ""):
        check_photo(given, asked.photo)
        if isinstance(given, Heatmap):
            check_explained(given, asked.targets)
        values = fit_map(read_map(given), asked.size, asked.photo, asked.seen)
        return check_map(values, (1, 1))


def _choose_orders(maps: list[Maps], cells: tuple[int, int], plan: _Plan) -> Orders:
    """The orders of the cells: by each map, random ones, and from the centre outwards."""
    rng, count = np.random.default_rng(plan.seed), cells[0] * cells[1]
    shuffled = np.stack([rng.permutation(count) for _ in range(plan.orders)])
    maps = [*maps, make_middle(cells)]
    ties = [rng.permutation(count) for _ in maps]
    by_map = [np.lexsort((tie, -_average_cells(one, cells).ravel())) for one, tie in zip(maps, ties, strict=True)]
    return np.stack([*by_map[:-1], *shuffled, by_map[-1]])


def _average_cells(values: Maps, cells: tuple[int, int]) -> Maps:
    """The mean of a map (H, W) in each cell."""
    return sum_cells(values, cells) / measure_areas(values.shape, cells)


def _score_orders(
    plan: _Plan, asked: Asked, orders: Orders, cells: tuple[int, int], counts: npt.NDArray[np.int64]
) -> Scores:
    """The target's score when the first cells of each order are covered, or shown: (orders, P), P numbers of cells.

    None and all of the cells are the same in each order, and run once."""
    ranks = orders.argsort(1)  # (orders, cells): each cell's place
    first = ranks[:, None] < counts[1:-1, None]  # (orders, P - 2, cells)
    none = np.zeros((1, orders.shape[1]), bool)
    every = np.concatenate([none, ~none, *first])  # (2 + ..., cells)
    covered = (every if plan.kind == "delete" else ~every).reshape(-1, *cells)
    cover = make_cover(asked.model, asked.image, plan.fill)

    def alter(indices: Indices) -> Tensor:
        return cover(covered[indices])  # (B, C, H, W)

    found = np.empty((len(covered), 1))
    for indices, some in score_batches(
        asked.model,
        alter,
        np.arange(len(covered)),
        asked.targets,
        batch=plan.batch,
        layout=asked.clean.layout,
        label=plan.kind,
        shown=plan.progress,
    ):
        found[indices] = some
    if not differ(found, asked.scores, asked.largest, asked.image.dtype).any():
        raise DegenerateResult(
            f"{asked.targets[0]} changes by no more than rounding when parts of the image are covered, or all of it: "
            "no order is better than another. Take another target or fill"
        )
    rest = found[2:, 0].reshape(len(orders), len(counts) - 2)
    ends = (np.full((len(orders), 1), end) for end in found[:2, 0])
    return np.concatenate([next(ends), rest, next(ends)], 1)
