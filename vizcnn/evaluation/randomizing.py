"""Randomizing: what becomes of a map while a copy of the network forgets, layer by layer, what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy, deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from vizcnn.errors import DegenerateResult, NonFiniteResult, ParameterError
from vizcnn.evaluation.asking import make_provenance
from vizcnn.evaluation.cells import compare
from vizcnn.evaluation.judging import check_map
from vizcnn.evaluation.reading import read_map
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import add_context, borrow
from vizcnn.models.layers.axes import find_layers
from vizcnn.models.model import Model
from vizcnn.models.preparing import require_model
from vizcnn.models.threads import check_seed
from vizcnn.models.unwrapping import list_modules
from vizcnn.progress import bar
from vizcnn.results import Curve


def randomize(
    model: Model,
    explain: Callable[[Model], Any],
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Curve:
    """How alike a map stays while the network's layers are made random, from the last to the first.

    On a copy of the network, the weights of its last layer are drawn anew, then those of the one before it too, and so
    on down to the first. After each step the map is made again and compared with that of the network as it is:
    Spearman's rank correlation over 12 x 12 cells, or as many as the map has. A map that explains what the network has
    learned does not stay as it was; an edge detector does.

        >>> import vizcnn
        >>> model = vizcnn.load("tiny")
        >>> def explain(model):
        ...     return vizcnn.Saliency()(model, "sample:grace_hopper", "military uniform", progress=False)
        >>> curve = vizcnn.evaluation.randomize(model, explain, progress=False)
        >>> float(curve.lines[0, 0]), bool(curve.lines[0, -1] < 0.7)
        (1.0, True)

    explain: a function that makes the map of a model, as `vizcnn.evaluate` takes one. Let it name the target: by
        default a probe explains the class predicted, which changes too. It gets copies; the network stays as it is.
    layers: their names, from the last to the first; each with all that is inside it. By default every layer with a
        matrix of weights, a convolution for example, in the order in which the network runs them; what has other
        weights, such as a normalization, goes with the layer that runs before it.
    seed: of the new weights. Each tensor of weights is drawn from the normal distribution that has the mean and the
        standard deviation of the old one, so that activations keep about their size; buffers stay.

    A step after which there is no map (DegenerateResult, NonFiniteResult, or one that is even all over) is a gap.
    Paper: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv:1810.03292.
    Raises ParameterError (a network that cannot be copied or has no weights), LayerNotFound, UnsuitableNetwork (a black
    box), and what `explain` raises for the network as it is."""
    require_model("randomize", model)
    check_seed("randomize", seed)
    if not callable(explain):
        raise ParameterError(f"explain is a function from a model to a map, got {type(explain).__name__}")
    with add_context(f"randomize on {model.name}"):
        refuse_black_box(model.network, model.name)
        identity, other = model.provenance(), _copy(model)
        groups = _choose_groups(other) if layers is None else _read_layers(other, layers)
        likenesses, gaps = _follow(other, explain, groups, seed, progress)
    return Curve(
        make_provenance(
            model, identity, "randomize", {"layers": tuple(groups)}, "Adebayo et al. 2018, arXiv:1810.03292", seed
        ),
        x=np.arange(len(likenesses), dtype=np.float64),
        lines=np.array([likenesses]),
        names=("the map",),
        x_name="layers made random",
        y_name="likeness",
        title=f"How alike a map stays while {model.name} forgets",
        findings=(*_describe([*groups], likenesses), *(f"no map after {name}: {why}" for name, why in gaps.items())),
    )


Groups = dict[str, list[nn.Module]]
"""The layers whose weights are drawn together, by the name of the one that they are called after."""


def _copy(model: Model) -> Model:
    """A copy of a Model with a network of its own. Raises ParameterError."""
    other = copy(model)
    try:
        other.network = deepcopy(model.network)
    except Exception as error:
        raise ParameterError(
            f"the network holds something that cannot be copied ({error}), and only a copy is made random. Take locks, "
            "open files, tensors with a history and the like off it first"
        ) from error
    return other


def _choose_groups(model: Model) -> Groups:
    """All layers with weights, from the last that runs to the first, in groups that begin with a matrix of weights.

    What does not run by itself, such as a projection inside an attention, goes with the layer that it is inside."""
    with borrow(model, "randomize"):
        order = [*find_layers(model, model.grey())]
    by_layer: Groups = {}
    for name, module in list_modules(model.network).items():
        if any(True for _ in module.parameters(recurse=False)):
            by_layer.setdefault(_find_running(name, order), []).append(module)
    groups: Groups = {}
    for name in ["", *order]:
        if name not in by_layer:
            continue
        begins = any(p.dim() > 1 for module in by_layer[name] for p in module.parameters(recurse=False))
        if begins or not groups:
            groups[name] = by_layer[name]
        else:
            groups[[*groups][-1]] += by_layer[name]
    if not groups:
        raise ParameterError("the network has no weights that could be made random")
    return {name or _ALL: groups[name] for name in reversed([*groups])}


_ALL = "the network's own weights"


def _find_running(name: str, order: Collection[str]) -> str:
    """The layer itself if it runs, or the smallest that it is inside and that does; "" for the whole network."""
    while name and name not in order:
        name = name.rpartition(".")[0]
    return name


def _read_layers(model: Model, layers: Sequence[str]) -> Groups:
    """The layers of these names, each with all that is inside it. Raises LayerNotFound, and ParameterError for none and
    for layers without weights."""
    if isinstance(layers, str) or not layers:
        raise ParameterError(f"layers are a list of names, from the last to the first, got {layers!r}")
    groups = {name: [*model.layer(name).modules()] for name in layers}
    for name, modules in groups.items():
        if not any(True for module in modules for _ in module.parameters(recurse=False)):
            raise ParameterError(f"layer {name!r} has no weights that could be made random. Leave it out")
    return groups


def _follow(
    model: Model, explain: Callable[[Model], Any], groups: Groups, seed: int, shown: bool
) -> tuple[list[float], dict[str, str]]:
    """The likeness of the map with itself, 1, and with that after each of the groups; and why there is none, by group.

    model: a copy, which is made random."""
    rng, drawn = torch.Generator().manual_seed(seed), set[int]()
    likenesses, gaps = [1.0], dict[str, str]()
    with bar(len(groups) + 1, "randomize", "map", shown=shown) as progress:
        own = check_map(read_map(explain(model)), (1, 1))
        progress.update()
        for name, modules in groups.items():
            _redraw(modules, rng, drawn)
            try:
                likenesses.append(compare(own, check_map(read_map(explain(model)), (1, 1))))
            except (DegenerateResult, NonFiniteResult) as error:
                likenesses.append(float("nan"))
                gaps[name] = str(error)
            progress.update()
    return likenesses, gaps


@torch.no_grad()
def _redraw(modules: Sequence[nn.Module], rng: torch.Generator, drawn: set[int]) -> None:
    """Draw the modules' own weights anew, each tensor once. drawn: those that were, by id; it grows."""
    for module in modules:
        for weights in module.parameters(recurse=False):
            if id(weights) in drawn or not weights.is_floating_point():
                continue
            drawn.add(id(weights))
            spread, mean = torch.std_mean(weights.double(), correction=0)
            noise = torch.randn(weights.shape, generator=rng, dtype=torch.float64)
            weights.copy_(mean + spread * noise.to(weights.device))


def _describe(names: list[str], likenesses: list[float]) -> Iterator[str]:
    """What is left of the map after the first step and after the last, where there is a map."""
    said = {len(names): f"all {len(names)} are"} | {1: f"{names[0]} alone is random"}
    for step, what in sorted(said.items()):
        if np.isfinite(likenesses[step]):
            yield f"likeness {likenesses[step]:.2f} when {what}"
