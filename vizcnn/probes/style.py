"""Style: the content of one picture in the style of another."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from vizcnn.ascent import Objective, Penalty, Pixels, Recipe, check_objectives, compute_gram, optimize
from vizcnn.ascent.matching import ActivationDistance, GramDistance
from vizcnn.errors import DegenerateResult, ImageError, Interrupted
from vizcnn.inputs.images import read_source
from vizcnn.inputs.photo import Photo
from vizcnn.models.batches import answer_each
from vizcnn.models.layers.axes import find_spatial_layers
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.models.targets import target
from vizcnn.probing.facts import Facts, require_output
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Pictures, Scenery
from vizcnn.results.photos import reduce_photo

_LAYERS = 5  # resolutions at which style is compared, as in the paper


class Style(Probe[Pictures]):
    """How would this photograph look in the manner of that picture?

    The picture starts as the photograph. It is changed so that its activations in the content layer stay those of the
    photograph, while the correlations between channels (Gram matrices) in the style layers become those of the style
    picture. Each term is divided by the size of what it compares with, and the style's by the number of its layers,
    so that a weight means much the same in every network. Networks of VGG's type give the best pictures.

    By default style is compared at the last layer of each of the first five resolutions, and content at the second
    to last of these. `like` is a file or `sample:NAME`.

        >>> import vizcnn
        >>> result = vizcnn.Style(steps=2, size=64)(vizcnn.load("tiny"), "sample:grace_hopper")
        >>> result.save("style.png").name
        'style.png'

    Source: Gatys, Ecker & Bethge 2015, arXiv:1508.06576. Raises LayerNotFound, DegenerateResult, NonFiniteResult.
    """

    paper: ClassVar[str] = "Gatys, Ecker & Bethge 2015, arXiv:1508.06576"
    needs_photos: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False

    like: str = param("sample:mosaic", "The picture whose style is taken: a file or sample:NAME.", is_file=True)
    content_layer: str | None = param(None, "Where content is compared.")
    style_layers: tuple[str, ...] | None = param(
        None, "Where style is compared: names with commas between.", parse=parse_names
    )
    content_weight: float = param(1.0, "Weight of the content.", min=0)
    style_weight: float = param(100.0, "Weight of the style.", min=0)
    tv: float = param(1e-3, "Weight of the total variation, a mean over pixels.", min=0)
    optimiser: Literal["lbfgs", "adam"] = param("lbfgs", "How the picture is optimised.")
    steps: int = param(60, "Steps; one of lbfgs runs the network about 1.3 times.", min=1)
    rate: float | None = param(None, "Length of a step; by default 1 for lbfgs, 0.02 for adam.", min=1e-9)
    size: int = param(256, "Longer side of the picture.", min=16, unit="px")
    frames: int = param(0, "States on the way to keep, for an animation (save as .gif).", min=0)

    def rehearse(self, facts: Facts) -> str:
        model = facts.model
        self._choose_layers(model)
        require_output(facts)
        start = _resize_photo(model, facts.photo, self.size)  # (1, C, H, W)
        content, style = self._make_distances(model, start, _resize_photo(model, self._read_style(model), self.size))
        objective = Objective(target(content) + target(style), lowered=True)
        check_objectives(model, [objective], size=(start.shape[2], start.shape[3]))
        return f"content of {content.layer}, style of {', '.join(style.wanted)}"

    def compute(self, subject: Subject) -> Pictures:
        style_photo = self._read_style(subject.model)
        content, style = self._choose_layers(subject.model)
        subject = subject.run()

        def paint(part: slice) -> list[Scenery]:
            scene, finished = self._paint(subject, subject.photos[part.start], style_photo)
            if not finished:
                raise Interrupted(scene)
            return [scene]

        scenes = answer_each(len(subject.photos), paint, strict=subject.strict)
        manner = f"{style_photo.name} {style_photo.sha256()[:8]}"
        provenance = subject.keep(scenes).provenance(manner=manner, content=content, style=style)
        return Pictures(provenance, tuple(scenes.rows), scenes.partial)

    def _read_style(self, model: Model) -> Photo:
        """The picture whose style is taken. Raises ImageError for one of other channels than the network's."""
        photo, channels = read_source(self.like, model.input.reading), model.input.channels
        if channels not in (1, 3) and photo.channels != channels:
            raise ImageError(
                f"{photo.name}, whose style is taken, has {photo.channels} channels, and {model.name} "
                f"takes {channels}. Name another with like, a .npy file of an array (H, W, {channels})"
            )
        return photo

    def keeps_frames(self) -> bool:
        return self.frames > 0

    def _choose_layers(self, model: Model) -> tuple[str, tuple[str, ...]]:
        """The content layer and the style layers."""
        last = {size: name for name, size in find_spatial_layers(model, model.grey()).items()}  # of each resolution
        layers = tuple(last.values())[:_LAYERS]
        if not layers:
            raise DegenerateResult(
                f"no layer of {model.name} gives a map (N, C, H, W) of more than one position, so none knows a style"
            )
        return self.content_layer or layers[max(0, len(layers) - 2)], self.style_layers or layers

    def _paint(self, subject: Subject, photo: Photo, style_photo: Photo) -> tuple[Scenery, bool]:
        """The picture, and whether it was finished."""
        model = subject.model
        start, other = (_resize_photo(model, each, self.size) for each in (photo, style_photo))  # (1, C, H, W)
        content, style = self._make_distances(model, start, other)
        recipe = self._make_recipe(start)
        outcome = optimize(
            model,
            [Objective(self.content_weight * target(content) + self.style_weight * target(style), lowered=True)],
            recipe,
            size=(start.shape[2], start.shape[3]),
            start=start,
            seed=subject.seed,
            frames=self.frames,
            label="style",
            progress=subject.progress,
        )
        before, after = (
            self._compute_terms(model, content, style, recipe, each) for each in (start, outcome.pictures.to(start))
        )
        terms = {name: (before[name], after[name]) for name in before}
        sources = tuple(
            (part, reduce_photo(each, display=model.input.display))
            for part, each in (("content", photo), ("style", style_photo))
        )
        image = outcome.pictures[0].permute(1, 2, 0).numpy()  # (H, W, C)
        return Scenery(image, sources, terms, outcome.frames[:, 0].permute(0, 2, 3, 1).numpy()), outcome.finished

    def _make_distances(self, model: Model, photo: Tensor, other: Tensor) -> tuple[ActivationDistance, GramDistance]:
        """What is to become small: the distances from the photograph's content and from the other's style."""
        content, style = self._choose_layers(model)
        with torch.no_grad(), open_reader(model, {content, *style}) as read:
            of_photo = read(photo.to(model.dtype))[content].float()
            of_other = read(other.to(model.dtype))
        grams = {name: compute_gram(of_other[name].float()) for name in style}
        return ActivationDistance(content, of_photo), GramDistance(grams)

    def _make_recipe(self, picture: Tensor) -> Recipe:
        """How a picture (1, C, H, W) is optimised: its pixels directly, without random movements."""
        return Recipe(
            "style",
            Pixels(),
            penalty=Penalty(tv=self.tv / picture[0, 0].numel(), power=1.0),  # Penalty adds up, tv weighs the mean
            optimiser=self.optimiser,
            rate=self.rate or {"lbfgs": 1.0, "adam": 0.02}[self.optimiser],
            steps=self.steps,
            keep="best",
        )

    def _compute_terms(
        self, model: Model, content: ActivationDistance, style: GramDistance, recipe: Recipe, picture: Tensor
    ) -> dict[str, float]:
        """The terms and their weighted total for a picture (1, C, H, W)."""
        with torch.no_grad(), open_reader(model, content.layers | style.layers) as read:
            activations = read(picture.to(model.dtype))
            of_content, of_style = float(content(activations)), float(style(activations))
            of_variation = float(recipe.penalty(picture, picture))
        total = self.content_weight * of_content + self.style_weight * of_style + of_variation
        return {"content": of_content, "style": of_style, "total": total}


def _resize_photo(model: Model, photo: Photo, side: int) -> Tensor:
    """A photograph (1, C, H, W), enlarged or reduced so that its longer side has `side` px."""
    factor = side / max(photo.size)
    height, width = (max(1, round(each * factor)) for each in photo.size)
    return model.input.resample(photo, (height, width)).to(model.device)
