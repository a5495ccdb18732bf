"""Pictures: an image for each unit of a site, made by gradient ascent, and what the unit gives for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vizcnn.anatomy.keeping import NOWHERE, Arrays, Keeper
from vizcnn.ascent import Objective, Recipe, optimize
from vizcnn.graph.sites import Site
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.layers.readings import OUTPUT_NAME, finish_reading, split_reading
from vizcnn.models.model import Model
from vizcnn.models.outputs import require_output
from vizcnn.models.targets import OUTPUT, Target, target
from vizcnn.version import __version__

BATCH = 16
"""Pictures that are kept together. They are made together too, as far as memory allows; a picture is the same however
many are."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of P units of a site.

    units: int64 (P,). pixels: uint8 (P, H, W, C). reached: float32 (P,), the unit's largest activation in its picture
    as it is stored, to be compared with the largest over a data set; of a class the output."""

    units: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    reached: npt.NDArray[np.float32]


def make_pictures(
    model: Model,
    site: Site,
    units: Sequence[int],
    recipe: Recipe,
    *,
    seed: int = 0,
    keeper: Keeper = NOWHERE,
    progress: bool = False,
) -> Pictures:
    """A picture for each of some units, in batches, each of which is kept as soon as it is done.

    The objective is the mean over places of what the unit's layer gives; behind an activation that no layer gives, of
    what that is applied to. A picture does not depend on the batch that it is made in. The network must be borrowed.

    Raises what `vizcnn.ascent.optimize` raises, and KeyboardInterrupt after Ctrl-C, when whole batches are kept.
    """
    parts = [list(units[start : start + BATCH]) for start in range(0, len(units), BATCH)]
    made = [
        keeper.recall(
            describe_batch(model, site, part, recipe, seed), _Batch(model, site, part, recipe, seed, progress)
        )
        for part in parts
    ]
    size = (0, *model.input.size, model.input.channels)
    return Pictures(
        np.array(list(units), np.int64),
        np.concatenate([np.zeros(size, np.uint8), *(each["pixels"] for each in made)]),
        np.concatenate([np.zeros(0, np.float32), *(each["reached"] for each in made)]),
    )


def describe_batch(model: Model, site: Site, units: Sequence[int], recipe: Recipe, seed: int) -> Mapping[str, Any]:
    """Everything that a batch of pictures depends on, as JSON can hold it."""
    about = model.provenance()
    return {
        "what": "pictures",
        "version": __version__,
        "weights": about["weights_sha256"],
        "network": about["network_sha256"],
        "input": repr(about["input"]),
        "read": site.read,
        "units": list(map(int, units)),
        "recipe": repr(recipe),
        "seed": seed,
    }


@dataclass(frozen=True)
class _Batch:
    """Some units, whose pictures are made when it is called."""

    model: Model
    site: Site
    units: Sequence[int]
    recipe: Recipe
    seed: int
    progress: bool

    def __call__(self) -> Arrays:
        objectives = [Objective(find_target(self.site, unit).resolved(self.model)) for unit in self.units]
        outcome = optimize(
            self.model, objectives, self.recipe, seed=self.seed, label=self.site.name, progress=self.progress,
        )  # fmt: skip
        if not outcome.finished:
            raise KeyboardInterrupt
        pixels = (outcome.pictures * 255).round().clamp(0, 255).to(torch.uint8)  # (P, C, H, W)
        return {"pixels": pixels.permute(0, 2, 3, 1).cpu().numpy(), "reached": self._measure(pixels)}

    @torch.no_grad()
    def _measure(self, pixels: torch.Tensor) -> npt.NDArray[np.float32]:
        layer = OUTPUT if self.site.is_output else split_reading(self.site.read)[1]
        with open_reader(self.model, [layer]) as read:
            found = read((pixels.float() / 255).to(self.model.device, self.model.dtype))[layer]
        values = require_output(found) if self.site.is_output else finish_reading(self.site.read, found)
        own = values[torch.arange(len(values)), torch.tensor(list(self.units))]
        return np.asarray(own.flatten(1).amax(1).float().cpu().numpy() if own.dim() > 1 else own.float().cpu().numpy())


def find_target(site: Site, unit: int) -> Target:
    """What a picture of a unit is made for."""
    _, layer = split_reading(site.read)
    return target(unit) if layer == OUTPUT_NAME else target(f"{layer}:{unit}")
