"""Explorer: a network and some images, asked one question after another. Every answer is numbers, from real runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import NonFiniteResult, ParameterError, TargetError, did_you_mean
from vizcnn.exploring.methods import list_methods
from vizcnn.exploring.replies import Answers, MapOfImage, UnitMap, list_classes
from vizcnn.exploring.sources import Picture, list_sources, read_picture
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import borrow
from vizcnn.models.clean import CleanRuns, run_clean
from vizcnn.models.determinism import score_activations
from vizcnn.models.functions import OUTPUT
from vizcnn.models.layers.axes import find_layers
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.preparing import require_model
from vizcnn.models.targets import Target, parse_targets
from vizcnn.models.threads import check_seed
from vizcnn.occlusion.windows import make_baseline, occlude
from vizcnn.probes.occlusion import Occlusion


class Explorer:
    """Choose an image, a target and a method; cover parts; look at units.

    The network is borrowed for each answer and handed back as it was; nothing is remembered of it, so that answers are
    right after it has been trained on.

    names: of the images. methods: names of those that make maps. fill: what covers, as in the option of Occlusion.
    image, method: what is chosen. boxes: what is covered, (y, x, height, width) in px of the input. map: the latest.
    """

    def __init__(
        self,
        model: Model,
        images: Any,
        target: Any = None,
        methods: Sequence[Any] | None = None,
        *,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        require_model("explore", model)
        check_seed("explore", seed)
        self.model, self.seed, self.progress = model, seed, progress
        self._methods = list_methods(model, methods)
        self._sources = list_sources(images, model)
        self.names = tuple(source.name for source in self._sources)
        self.methods = tuple(self._methods)
        own = (probe for probe in self._methods.values() if isinstance(probe, Occlusion))
        self.occlusion = next(own, Occlusion())
        self.method = self.methods[0]
        self.boxes: tuple[tuple[int, int, int, int], ...] = ()
        self._target = self._parse(target)
        self.choose_image(0)
        self.map: MapOfImage | None = None

    def __repr__(self) -> str:
        images = "1 image" if len(self.names) == 1 else f"{len(self.names)} images"
        return f"<Explorer of {self.model.name}: {images}, {self.names[self.image]!r} chosen>"

    @property
    def fill(self) -> str:
        return self.occlusion.fill

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in px."""
        return self.picture.size

    @property
    def target(self) -> str:
        """What was chosen to be explained, in words; "" for the predicted class of each image."""
        return "" if self._target is None else str(self._target)

    # ------------------------------------------------------------------------------------------------------- choosing

    def choose_image(self, number: int) -> None:
        """Go to an image, by its number. Nothing of it is covered. Raises ParameterError, ImageError, ShapeError."""
        if not (isinstance(number, int) and 0 <= number < len(self.names)):
            raise ParameterError(f"explore: images are numbered 0 to {len(self.names) - 1}, got {number!r}")
        self.picture: Picture = read_picture(self._sources[number], self.model)
        self.image, self.boxes = number, ()

    def choose_target(self, target: Any = None) -> None:
        """Explain this target, as a probe takes it; None for the predicted class of each image. Raises TargetError."""
        self._target = self._parse(target)

    def choose_method(self, name: str) -> None:
        """Make maps by this method. Raises ParameterError."""
        if name not in self._methods:
            known = ", ".join(self.methods)
            raise ParameterError(
                f"explore: method must be one of {known}, got {name!r}.{did_you_mean(str(name), known.split(', '))}"
            )
        self.method = name

    def _parse(self, target: Any) -> Target | None:
        if target is None or target == "":
            return None
        one, *others = parse_targets(target)
        if others:
            raise TargetError(f"explore is about one target at a time, got {target!r}")
        resolved: Target = one.resolved(self.model)
        return resolved

    # ------------------------------------------------------------------------------------------------------- covering

    def cover(self, y: int, x: int, height: int, width: int, *, more: bool = False) -> Answers:
        """Cover a part of the image and ask the network again: what it says before and after.

        y, x: the part's first row and column, in px of the input. more: beside what is covered already. Covered pixels
        are those that Occlusion with this window and its `fill` puts there. Raises ParameterError for a part that is
        not inside the image."""
        box = self._check_box((y, x, height, width))
        self.boxes = (*self.boxes, box) if more else (box,)
        return self.answer()

    def cover_parts(self, boxes: Sequence[Sequence[int]]) -> None:
        """Cover these parts (y, x, height, width) and no others. Raises ParameterError."""
        self.boxes = tuple(self._check_box(tuple(box)) for box in boxes)

    def uncover(self) -> None:
        """Show the image as it is."""
        self.boxes = ()

    def _check_box(self, box: tuple[Any, ...]) -> tuple[int, int, int, int]:
        (rows, columns), whole = self.size, len(box) == 4 and all(isinstance(n, int) for n in box)
        if whole and min(box[:2]) >= 0 and min(box[2:]) > 0 and box[0] + box[2] <= rows and box[1] + box[3] <= columns:
            return box[0], box[1], box[2], box[3]
        raise ParameterError(
            f"explore: what is covered is (y, x, height, width) in whole px inside {rows} x {columns}, got {box}"
        )

    @property
    def inputs(self) -> Tensor:
        """The input as it is now, with what is covered: (C, H, W) in [0, 1]."""
        covered = self.picture.inputs
        for y, x, height, width in self.boxes:
            baseline = make_baseline(self.fill, self.picture.inputs, self.model.input.mean, (height, width))
            covered = occlude(covered, baseline, np.array([[y, y + height, x, x + width]]))[0]
        return covered  # (C, H, W)

    # -------------------------------------------------------------------------------------------------------- answers

    @torch.no_grad()
    def answer(self) -> Answers:
        """What the network says of the image, and where parts are covered of that too. Raises what a probe raises."""
        with borrow(self.model, "explore"):
            runs = self._run_clean()
            (target,), score = runs.targets[0], float(runs.scores[0, 0])
            output, after = runs.output, None
            if self.boxes:
                seen = read_activations(self.model, self.inputs[None], {OUTPUT, *target.layers})
                after = float(score_activations([target], seen, 1)[0, 0])
                if not np.isfinite(after):
                    raise NonFiniteResult(f"{target} is {after} for the covered image. Check the weights")
                output = None if output is None else _join(output, seen[OUTPUT])
            return Answers(
                target=str(target),
                spec=target.spec,
                quantity=runs.name_quantity(target.quantity),
                before=score,
                after=after,
                classes=list_classes(self.model, output, runs.head, target.spec),
            )

    def _run_clean(self) -> CleanRuns:
        given = None if self._target is None else (self._target,)
        runs = run_clean(self.model, self.picture.inputs[None], given, strict=True)
        runs.run(strict=True)
        return runs

    def make_map(self, *, trust: bool = False) -> MapOfImage:
        """The chosen method's map of the image as it is, for the chosen target. Raises what the probe raises.

        trust: also judge how far it can be believed, see `vizcnn.results.Trust`."""
        self.map = None
        found = self._methods[self.method](
            self.model,
            self.picture.source,
            self._target,
            seed=self.seed,
            progress=self.progress,
            strict=True,
            trust=trust,
        )
        self.map = MapOfImage.of(self.method, found)
        return self.map

    # ---------------------------------------------------------------------------------------------------------- units

    def list_layers(self) -> dict[str, tuple[int, int, int]]:
        """The layers that give maps of this image, in the order of their runs: channels, rows and columns of each."""
        if self.model.is_black_box:
            return {}
        with borrow(self.model, "explore"):
            found = find_layers(self.model, self.picture.inputs[None])
        maps = {name: layer for name, layer in found.items() if layer.axes.places == 2 and np.prod(layer.size) > 1}
        return {name: (layer.shape[layer.axes.order[1]], *layer.size) for name, layer in maps.items()}  # type: ignore[misc]

    @torch.no_grad()
    def read_unit(self, layer: str, unit: int) -> UnitMap:
        """What a unit of a layer makes of the image as it is now, with what is covered.

        Raises LayerNotFound, TargetError for a layer without maps or a unit that it does not have."""
        refuse_black_box(self.model.network, self.model.name)
        self.model.layer(layer)
        with borrow(self.model, "explore"):
            maps = read_activations(self.model, self.inputs[None], [layer])[layer].float().cpu()
        if maps.dim() != 4:
            raise TargetError(f"layer {layer!r} gives no maps (N, C, H, W), got {tuple(maps.shape)}")
        if not (isinstance(unit, int) and 0 <= unit < maps.shape[1]):
            raise TargetError(f"layer {layer!r} has units 0 to {maps.shape[1] - 1}, got {unit!r}")
        if not maps.isfinite().all():
            raise NonFiniteResult(f"layer {layer!r} gives NaN or infinity for this image. Check the weights")
        peaks: npt.NDArray[np.float32] = maps[0].flatten(1).amax(1).numpy()
        return UnitMap(layer, unit, maps[0, unit].numpy(), peaks, len(self.boxes))


def _join(before: Tensor, after: Any) -> Tensor | None:
    """Two answers (1, ...) as one tensor (2, ...); None where they are no such tensors."""
    return torch.cat([before, after.detach().cpu()]) if isinstance(after, Tensor) else None
