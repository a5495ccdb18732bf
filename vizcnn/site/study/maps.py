"""Maps: what of an image its answers come from, by two methods, and how far each map can be believed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import VizcnnError
from vizcnn.graph.sites import Sites
from vizcnn.inputs.tensors import UNNAMED
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
    targets = _list_targets(material, number)
    if not targets:
        yield Missing(material.no_answer)
        return
    for name, probe in _list_methods(material):
        yield from _Question(material, number, image, name, probe).ask(targets)


def count_kept(material: Material, numbers: Iterable[int]) -> int:
    """For how many pairs of one of these images and a method all maps are kept."""

    def is_kept(number: int, name: str) -> bool:
        targets, has = _list_targets(material, number), material.keeper.has
        together = has(_make_key(material, number, name, targets))
        return together or all(has(_make_key(material, number, name, [target])) for target in targets)

    return sum(is_kept(number, name) for number in numbers for name, _ in _list_methods(material))


def _list_targets(material: Material, number: int) -> list[int]:
    """The predicted class of an image, and the right one where that is another; none where there is no answer."""
    predicted, label = int(material.predicted[number]), int(material.labels[number])
    if predicted < 0:
        return []
    return [predicted] + ([label] if label not in (-1, predicted) else [])


def _make_key(material: Material, number: int, name: str, targets: Sequence[int]) -> dict[str, Any]:
    """What the maps of a method depend on."""
    return material.key("maps", method=name, image=number, targets=targets, seed=material.plan.seed)


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
                fact = re.sub(rf"\b(for|of) {UNNAMED}\b", rf"\1 image {self.number}", error.fact)
                yield Missing(f"{self.name} for {self.material.model.class_name(targets[0])}: {fact}.")
                return
            for target in targets:
                yield from self.ask([target])

    def _recall(self, targets: Sequence[int]) -> Iterator[MapOf]:
        """The maps of some classes, which share their runs. Raises what the method raises."""
        material = self.material
        key = _make_key(material, self.number, self.name, targets)
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
