"""Dream: a photograph changed until the network sees more of what it sees in it already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.ascent import Objective, Outcome, Pixels, Recipe, Transforms, check_objectives, optimize, score_pictures
from vizcnn.errors import Interrupted, TargetError
from vizcnn.inputs.photo import Photo
from vizcnn.models.batches import answer_each
from vizcnn.models.layers.axes import find_spatial_layers
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.segmentation import PredictedArea
from vizcnn.models.targets import Target, target
from vizcnn.probing.facts import Facts, require_answer, require_steadiness
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Pictures, Scenery
from vizcnn.results.photos import reduce_photo

_LARGEST = 512  # px: the longer side of a dream, unless another is asked for
_SMALLEST = 32  # px: the shorter side of the smallest octave


class Dream(Probe[Pictures]):
    """What does the network see in this photograph, exaggerated?

    The photograph is changed along the gradient of its target, first at a small size and then at ever larger ones
    (octaves), each beginning with the details that the one before has added. The target is a whole layer's energy
    (the mean square of its activations; by default that of a layer in the middle), or any other: a channel, a class. A
    class of a segmentation is raised where it is predicted in the photograph.
    The picture has the photograph's own size, up to 512 px, not the network's. `sample:noise` is a start that shows
    nothing yet.

        >>> import vizcnn
        >>> probe = vizcnn.Dream(octaves=2, steps=2, size=96)
        >>> result = probe(vizcnn.load("tiny"), "sample:grace_hopper", target="energy(layer2)")
        >>> result.save("dream.png").name
        'dream.png'

    Source: Mordvintsev, Olah & Tyka 2015, "Inceptionism: Going Deeper into Neural Networks".
    Raises TargetError, ShapeError, NotDifferentiable, NonFiniteResult.
    """

    paper: ClassVar[str] = "Mordvintsev, Olah & Tyka 2015, Inceptionism"
    needs_photos: ClassVar[bool] = True

    octaves: int = param(4, "Sizes that are worked at, from small to large.", min=1)
    scale: float = param(1.4, "Each octave is larger than the one before by this factor.", min=1.01)
    steps: int = param(10, "Steps in each octave.", min=1)
    rate: float = param(0.01, "Length of a step: the root mean square of the change of a pixel in [0, 1].", min=1e-9)
    jitter: float | None = param(
        None,
        "Largest random shift in each step, as a share of the side; by default 0.06, or 0 for one neuron.",
        min=0,
        max=0.5,
    )
    size: int | None = param(
        None, "The picture's longer side; by default the photograph's, at most 512.", min=16, unit="px"
    )
    frames: int = param(0, "States of each octave to keep, for an animation (save as .gif).", min=0)

    def default_targets(self, model: Model) -> Sequence[Any]:
        layers = list(find_spatial_layers(model, model.grey()))
        return [f"energy({layers[len(layers) * 2 // 3]})"] if layers else [0]

    def keeps_frames(self) -> bool:
        return self.frames > 0

    def rehearse(self, facts: Facts) -> str:
        model = facts.model
        require_steadiness(facts)
        asked = require_answer(facts) if facts.given else target(self.default_targets(model)[0])
        sizes = self._list_sizes(self._resize_photo(model, facts.photo))
        for size in sizes[:2]:  # at most one is the network's own; where it takes a second, it takes others
            check_objectives(model, [Objective(asked.resolved(model))], size=size)
        return str(asked)

    def compute(self, subject: Subject) -> Pictures:
        for targets in subject.targets:
            if len(targets) > 1:
                named = ", ".join(map(str, targets))
                raise TargetError(f"a dream raises one target, got {len(targets)}: {named}. Give one, or their sum")
        subject = subject.run()

        def make_picture(part: slice) -> list[Scenery]:
            i = part.start
            scene, finished = self._make_picture(subject, subject.photos[i], Objective(subject.targets[i][0]))
            if not finished:
                raise Interrupted(scene)
            return [scene]

        scenes = answer_each(len(subject.photos), make_picture, strict=subject.strict)
        provenance = subject.keep(scenes).provenance(octaves=self.octaves)
        return Pictures(provenance, tuple(scenes.rows), scenes.partial)

    def _make_picture(self, subject: Subject, photo: Photo, objective: Objective) -> tuple[Scenery, bool]:
        """The picture, and whether it was finished."""
        base = self._resize_photo(subject.model, photo)  # (1, C, H, W)
        objective = replace(objective, target=_choose_again(subject, base, objective.target))
        picture, frames, finished = base, list[Tensor](), True
        for octave, size in enumerate(sizes := self._list_sizes(base)):
            start = small = _resize(base, size)  # (1, C, h, w)
            if octave:
                start = small + _resize(picture - _resize(base, picture.shape[2:]), size)  # with the details so far
            outcome = self._run_octave(subject, objective, start.clamp(0, 1), f"octave {octave + 1} of {len(sizes)}")
            picture, finished = outcome.pictures.to(base), outcome.finished
            frames.append(_resize(outcome.frames[:, 0].float() / 255, base.shape[2:]))  # (F, C, H, W)
            if not finished:
                picture = base + _resize(picture - small, base.shape[2:])
                break
        picture = picture.clamp(0, 1)
        before, after = (float(score_pictures(subject.model, [objective], each)[0]) for each in (base, picture))
        return Scenery(
            _to_array(picture)[0],
            (("", reduce_photo(photo, display=subject.model.input.display)),),
            {str(objective.target): (before, after)},
            (_to_array(torch.cat(frames)) * 255).round().astype(np.uint8),
        ), finished

    def _run_octave(self, subject: Subject, objective: Objective, start: Tensor, label: str) -> Outcome:
        recipe = Recipe(
            "dream",
            Pixels(),
            Transforms(jitter=self._choose_jitter(objective)),
            optimiser="ascent",
            rate=self.rate,
            steps=self.steps,
        )
        return optimize(
            subject.model,
            [objective],
            recipe,
            size=(start.shape[2], start.shape[3]),
            start=start.float(),
            seed=subject.seed,
            frames=self.frames,
            label=f"dream, {label}",
            progress=subject.progress,
        )

    def _choose_jitter(self, objective: Objective) -> float:
        if self.jitter is not None:
            return self.jitter
        # a neuron or an area lies at one fixed place, and shifts would smear what appears there
        return 0.0 if any(getattr(unit, "has_place", False) for _, unit in objective.target.terms) else 0.06

    def _resize_photo(self, model: Model, photo: Photo) -> Tensor:
        """The photograph (1, C, H, W) in the size of the dream."""
        longer = max(photo.size)
        factor = (self.size or min(longer, _LARGEST)) / longer
        height, width = (max(1, round(side * factor)) for side in photo.size)
        return model.input.resample(photo, (height, width)).to(model.device)

    def _list_sizes(self, base: Tensor) -> list[tuple[int, int]]:
        """Height and width of each octave, from small to the picture's own."""
        height, width = base.shape[2:]
        sizes = [(height, width)]
        for octave in range(1, self.octaves):
            smaller = round(height / self.scale**octave), round(width / self.scale**octave)
            if min(smaller) < _SMALLEST:
                break
            sizes.insert(0, smaller)
        return sizes


@torch.no_grad()
def _choose_again(subject: Subject, base: Tensor, target: Target) -> Target:
    """The target, with the areas that a segmentation predicts chosen in the photograph (1, C, H, W) as the dream has
    it: the network's own input may be a part of it, in which they lie elsewhere."""
    if not any(isinstance(getattr(unit, "over", None), PredictedArea) for _, unit in target.terms):
        return target
    activations = read_activations(subject.model, base.to(subject.model.dtype), target.layers)
    return target.choose(activations, 1, subject.head, subject.model.class_name)[0]


def _resize(images: Tensor, size: Sequence[int]) -> Tensor:
    if not len(images):
        return images.new_empty(0, images.shape[1], *size)
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, tuple(size), mode="bilinear", antialias=True)


def _to_array(images: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return images.permute(0, 2, 3, 1).float().cpu().numpy()  # (N, H, W, C)
