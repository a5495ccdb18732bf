"""Maps: what of an image its answers come from, by two methods, and how far each map can be believed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import VizcnnError
from vizcnn.graph.sites import Sites
from vizcnn.probes.cam import Cam
from vizcnn.probes.occlusion import Occlusion
from vizcnn.probing.probe import Probe
from vizcnn.results import Heatmap
from vizcnn.results.trust import Trust
from vizcnn.site.records import MapOf, Missing
from vizcnn.site.study.material import Material

_UNKNOWN = Missing("How far it can be believed could not be found out.")


def make_maps(material: Material, number: int, image: Tensor) -> Iterator[MapOf | Missing]:
    """Maps of the predicted class, and of the right one where that is another, each kept as soon as it is made; for one
    that cannot be made the reason.

    number: of the image in the data set. image: float32 (1, C, H, W) in [0, 1]."""
    predicted, label = int(material.predicted[number]), int(material.labels[number])
    if predicted < 0:
        yield Missing(material.no_answer)
        return
    targets = [predicted] + ([label] if label not in (-1, predicted) else [])
    for name, probe in _list_methods(material):
        yield from _Question(material, number, image, name, probe).ask(targets)


@dataclass(frozen=True)
class _Question:
    """A method that is asked about an image."""

    material: Material
    number: int
    image: Tensor
    name: str
    probe: Probe[Heatmap]

    def ask(self, targets: Sequence[int]) -> Iterator[MapOf | Missing]:
        """The maps of some classes, or why there are none. One for which nothing speaks takes no map from the other."""
        try:
            yield from self._recall(targets)
        except VizcnnError as error:
            if len(targets) == 1:
                yield Missing(f"{self.name} for {self.material.model.class_name(targets[0])}: {error.fact}.")
                return
            for target in targets:
                yield from self.ask([target])

    def _recall(self, targets: Sequence[int]) -> Iterator[MapOf]:
        """The maps of some classes, which share their runs. Raises what the method raises."""
        material = self.material
        key = material.key("maps", method=self.name, image=self.number, targets=targets, seed=material.plan.seed)
        kept = material.keeper.recall(key, partial(self._compute, targets))
        for target, values, said in zip(targets, kept["values"], json.loads(str(kept["said"])), strict=True):
            trust = Trust(**said["trust"]) if said["trust"] else _UNKNOWN
            yield MapOf(self.name, said["meaning"], material.model.class_name(target), values, trust)

    def _compute(self, targets: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """The values of a map for each target, (T, h, w), and what is said of it, as JSON."""
        plan = self.material.plan
        made = self.probe(self.material.model, self.image, targets, trust=True, seed=plan.seed, progress=False)
        trusts = made.trust[0] if made.trust else [None] * len(targets)
        said = [
            {"meaning": meaning, "trust": trust and asdict(trust)}
            for meaning, trust in zip(made.meanings, trusts, strict=True)
        ]
        return {"values": made.values[0], "said": np.array(json.dumps(said))}


def _list_methods(material: Material) -> Iterator[tuple[str, Probe[Heatmap]]]:
    yield "Occlusion", choose_occlusion(material.sites)
    yield "Grad-CAM", Cam()


def choose_occlusion(sites: Sites) -> Occlusion:
    """Occlusion that tries no shortcut on a network that cannot be followed, which the overview says already."""
    return Occlusion(engine="plain" if sites.graph is None else "auto")
