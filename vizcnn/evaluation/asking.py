"""Asking: one image and its targets, read, prepared, run and checked, for whoever judges maps of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import ParameterError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.readers import list_readers
from vizcnn.models.borrowing import add_context, borrow
from vizcnn.models.clean import CleanRuns, run_clean
from vizcnn.models.model import Model
from vizcnn.models.preparing import prepare_source, require_model
from vizcnn.models.scoring import Scores
from vizcnn.models.targets import Target, parse_targets
from vizcnn.results import Provenance
from vizcnn.version import __version__


@dataclass(frozen=True)
class Asked:
    """What a network was asked about one image.

    identity: the model's, for the provenance. photo, seen: the image, and the box of it that the network sees.
    clean: the network's answer to it."""

    model: Model
    identity: Mapping[str, Any]
    photo: Photo
    seen: Box
    clean: CleanRuns

    @property
    def image(self) -> Tensor:
        """(C, H, W) in [0, 1]."""
        return self.clean.inputs[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in px."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    @property
    def targets(self) -> tuple[Target, ...]:
        """T of them, resolved."""
        return self.clean.targets[0]

    @property
    def scores(self) -> Scores:
        """The targets', float64 (T,)."""
        scores: Scores = self.clean.scores[0]
        return scores

    @property
    def output(self) -> Tensor | None:
        """The network's output without the axis of images; None where it is not one tensor."""
        return None if self.clean.output is None else self.clean.output[0]

    @property
    def largest(self) -> float:
        """The magnitude of the largest output, by which rounding is judged; 0 where there is none."""
        return self.clean.measure_largest(0)

    def provenance(self, probe: str, options: Mapping[str, Any], paper: str, seed: int) -> Provenance:
        """The provenance of a result about the first target."""
        return replace(
            make_provenance(self.model, self.identity, probe, options, paper, seed),
            images=((self.photo.name, self.photo.sha256()),),
            targets=((str(self.targets[0]),),),
            target_specs=((self.targets[0].spec,),),
        )


@contextmanager
def ask(what: str, model: Model, image: Any, target: Any) -> Iterator[Asked]:
    """Ask a network about one image. While the context is open the network is borrowed and gradients are off.

    what: who asks, for messages. image: as a probe takes one. target: as a probe takes it; None for the class
    predicted. Raises ParameterError for what is no Model and for more than one image, and what probes raise."""
    require_model(what, model)
    with borrow(model, what), torch.no_grad():
        identity = model.provenance()  # before any run: some count their runs in a buffer
        found = [one for _, read in list_readers(image, model.input.reading) for one in prepare_source(model, read())]
        if len(found) != 1:
            raise ParameterError(f"it takes one image, got {len(found)}. Call it for each of them")
        ((photo, seen, values),) = (one for one in found if isinstance(one, tuple))  # a lone fault was raised
        with add_context(f"input {tuple(values[None].shape)}"):
            given = None if target is None else tuple(one.resolved(model) for one in parse_targets(target))
            clean = run_clean(model, values[None], given, weights=identity["weights_sha256"])
            clean.run(strict=True)
            yield Asked(model, identity, photo, seen, clean)


def make_provenance(
    model: Model, identity: Mapping[str, Any], probe: str, options: Mapping[str, Any], paper: str, seed: int
) -> Provenance:
    """The provenance of a result about no image. identity: the model's."""
    return Provenance(
        version=__version__,
        torch=torch.__version__,
        probe=probe,
        options=options,
        details={},
        **identity,
        device=str(model.device),
        images=(),
        targets=(),
        target_specs=(),
        seed=seed,
        paper=paper,
    )
