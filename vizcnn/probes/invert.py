"""Invert: the picture that a layer cannot tell from a photograph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vizcnn.ascent import Objective, Penalty, Pixels, Recipe, check_objectives, optimize
from vizcnn.ascent.matching import ActivationDistance
from vizcnn.errors import TargetError
from vizcnn.models.batches import answer_each
from vizcnn.models.layers.axes import find_layers
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import target
from vizcnn.probing.facts import Facts, require_output
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Optimised
from vizcnn.results.sheet import Inverted, arrange_inversions

_MOST = 5  # resolutions whose last layer is inverted by default


class Invert(Probe[Optimised]):
    """What does a layer still know of this photograph?

    Each picture x begins as noise and is changed until a layer's activations a(x) are those of the photograph, b:

        |a(x) - b|^2 / |b|^2  +  alpha * mean |2 (x - m)|^6  +  tv * mean (dx^2 + dy^2)

    is made small, with m the colour that the network's input is centred on and means over pixels and colours. To the
    layer, the picture is the photograph. What looks different to us is what the layer has lost: first exact colours
    and edges, then places. The number below a picture is the relative error reached, |a(x) - b| / |b|: where it stays
    large, the picture says little about the layer.

        >>> import vizcnn
        >>> result = vizcnn.Invert(layers="layer1, layer3", steps=2)(vizcnn.load("tiny"), "sample:grace_hopper")
        >>> result.save("inverted.png").name
        'inverted.png'

    By default the last layer of each of the last five resolutions, and the network's last.

    Source: Mahendran & Vedaldi 2015, arXiv:1412.0035; the optimiser here is L-BFGS. Raises LayerNotFound,
    DegenerateResult (a layer that is zero everywhere), NotDifferentiable, NonFiniteResult.
    """

    paper: ClassVar[str] = "Mahendran & Vedaldi 2015, arXiv:1412.0035"
    needs_target: ClassVar[bool] = False

    layers: tuple[str, ...] | None = param(
        None,
        "The layers: names with commas between; by default the last of each resolution and of all.",
        parse=parse_names,
    )
    alpha: float = param(1e-3, "Weight of |2 (x - m)|^6, which keeps colours from glaring.", min=0)
    tv: float = param(0.5, "Weight of the total variation, which keeps the picture smooth.", min=0)
    steps: int = param(200, "Steps of the optimiser for each picture.", min=1)
    batch: int | None = param(
        None,
        "Pictures of one layer optimised together; changes memory and time only. By default by free memory.",
        min=1,
    )
    frames: int = param(0, "States on the way to keep, for an animation (save as .gif).", min=0)

    def keeps_frames(self) -> bool:
        return self.frames > 0

    def rehearse(self, facts: Facts) -> str:
        require_output(facts)
        layers = self.layers or _choose_layers(facts.model)
        distances = _make_distances(facts.model, facts.image, layers)
        check_objectives(facts.model, [Objective(target(distance)) for distance in distances])
        return ", ".join(layers)

    def compute(self, subject: Subject) -> Optimised:
        layers = self.layers or _choose_layers(subject.model)
        subject = subject.run()
        pixels = subject.inputs[0].numel()

        def make_objectives(part: slice) -> list[list[Objective]]:
            distances = _make_distances(subject.model, subject.inputs[part], layers)
            return [[Objective(pixels * target(distance), lowered=True) for distance in distances]]

        made = answer_each(len(subject.inputs), make_objectives, strict=subject.strict)
        if made.partial:  # before anything was optimised
            raise KeyboardInterrupt
        subject, objectives = subject.keep(made), [each for row in made.rows for each in row]
        outcome = optimize(
            subject.model,
            objectives,
            Recipe(
                "invert",
                Pixels(),
                penalty=Penalty(alpha=self.alpha, tv=self.tv),  # sums over pixels, as is the objective
                optimiser="lbfgs",
                rate=1.0,
                steps=self.steps,
                keep="best",
            ),
            size=subject.size,
            seed=subject.seed,
            batch=self.batch,
            frames=self.frames,
            label="invert",
            progress=subject.progress,
        )
        sources = [divmod(index, len(layers)) for index in outcome.indices]  # photograph and layer of each picture
        subject = subject.first(1 + sources[-1][0])  # after Ctrl-C only the photographs that were begun
        errors = (outcome.scores / pixels).sqrt().tolist()
        tiles = outcome.pictures.permute(0, 2, 3, 1).numpy()  # (K, H, W, C)
        pictures = [
            Inverted(i, layers[layer], tile, error)
            for (i, layer), tile, error in zip(sources, tiles, errors, strict=True)
        ]
        return arrange_inversions(
            subject.provenance(layers=",".join(layers)),
            list(zip(subject.photos, subject.seen, strict=True)),
            pictures,
            self.steps,
            outcome.frames.permute(0, 1, 3, 4, 2).numpy(),  # (F, K, H, W, C)
            partial=not outcome.finished,
        )


def _choose_layers(model: Model) -> tuple[str, ...]:
    """The last layer of each of the last resolutions, and the network's last, in the order of running."""
    layers = find_layers(model, model.grey())
    if not layers:
        raise TargetError(f"no layer of {model.name} runs and gives a tensor, so there is nothing to invert")
    last = {layer.size: name for name, layer in layers.items() if layer.axes.places == 2}
    chosen = {*[name for size, name in last.items() if size[0] * size[1] > 1][-_MOST:], list(layers)[-1]}
    return tuple(name for name in layers if name in chosen)


@torch.no_grad()
def _make_distances(model: Model, image: Tensor, layers: Sequence[str]) -> Iterator[ActivationDistance]:
    """For each layer, the distance of its activations from those for an image (1, C, H, W)."""
    activations = read_activations(model, image, layers)
    precise = torch.promote_types(model.dtype, torch.float32)  # squares overflow half precision
    yield from (ActivationDistance(layer, activations[layer].to(precise)) for layer in layers)
