"""Style: one picture's content in another's manner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.ascent import gram
from vizcnn.ascent.optimisers import PlainLBFGS
from vizcnn.ascent.restraint import total_variation
from vizcnn.errors import DegenerateResult, NonFiniteResult
from vizcnn.inputs.images import Photo, open_photo
from vizcnn.models.layers.axes import spatial_layers
from vizcnn.models.layers.capture import reading
from vizcnn.models.model import Model
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.progress import bar
from vizcnn.results import Pictures, Scenery

_LAYERS = 5  # resolutions at which style is compared, as in the paper


class Style(Probe[Pictures]):
    """How would this photograph look in the manner of that picture?

    The picture starts as the photograph. It is changed until its activations in the content layer stay those of the
    photograph while the correlations between channels (Gram matrices) in the style layers become those of the style
    picture. Each term is divided by the size of what it compares with, and the style's by the number of its layers,
    so the weights mean much the same in every network. Networks of VGG's type give the best pictures.

    By default style is compared at the last layer of each of the first five resolutions, and content at the second
    to last of these. `like` is a file or `sample:NAME`.

    Source: Gatys, Ecker & Bethge 2015, arXiv:1508.06576. Raises LayerNotFound, DegenerateResult, NonFiniteResult.
    """

    paper: ClassVar[str] = "Gatys, Ecker & Bethge 2015, arXiv:1508.06576"
    needs_target: ClassVar[bool] = False

    like: str = param("sample:mosaic", "The picture whose style is taken: a file or sample:NAME.")
    content_layer: str | None = param(None, "Where content is compared.")
    style_layers: tuple[str, ...] | None = param(
        None, "Where style is compared: names with commas between.", parse=parse_names
    )
    content: float = param(1.0, "Weight of the content.", min=0)
    style: float = param(100.0, "Weight of the style.", min=0)
    tv: float = param(1e-3, "Weight of the total variation, a mean over pixels.", min=0)
    optimiser: Literal["lbfgs", "adam"] = param("lbfgs", "How the picture is optimised.")
    steps: int = param(60, "Steps; one of lbfgs runs the network about 1.3 times.", min=1)
    rate: float | None = param(None, "Length of a step; by default 1 for lbfgs, 0.02 for adam.", min=1e-9)
    size: int = param(256, "Longer side of the picture.", min=16, unit="px")
    frames: int = param(0, "States on the way to keep, for an animation (save as .gif).", min=0)

    def compute(self, subject: Subject) -> Pictures:
        manner = open_photo(self.like)
        scenes: list[Scenery] = []
        finished = True
        for photo in subject.photos:
            scene, finished = self._painted(subject, photo, manner)
            scenes.append(scene)
            if not finished:
                break
        subject = subject.first(len(scenes))
        content, style = self._layers(subject.model)
        provenance = subject.provenance(manner=f"{manner.name} {manner.sha256()[:8]}", content=content, style=style)
        return Pictures(provenance, tuple(scenes), not finished)

    def keeps_frames(self) -> bool:
        return self.frames > 0

    def _layers(self, model: Model) -> tuple[str, tuple[str, ...]]:
        """The content layer and the style layers."""
        by_size = {size: name for name, size in spatial_layers(model, model.grey()).items()}
        usual = tuple(by_size.values())[:_LAYERS]
        if not usual:
            raise DegenerateResult(
                f"no layer of {model.name} gives a map (N, C, H, W) of more than one position, so none knows a style"
            )
        return self.content_layer or usual[max(0, len(usual) - 2)], self.style_layers or usual

    def _painted(self, subject: Subject, photo: Photo, manner: Photo) -> tuple[Scenery, bool]:
        """The picture, and whether it was finished."""
        model = subject.model
        start, other = (_tensor(model, each, self.size) for each in (photo, manner))  # (1, C, H, W)
        content, style = self._layers(model)
        with (
            reading(model, {content, *style}) as read,
            torch.inference_mode(False),
            torch.enable_grad(),
            bar(self.steps, "style", "step", shown=subject.progress) as steps,
        ):
            aims = Aims.of(_maps(read, start, model), _maps(read, other, model), content, style)
            loss = self._loss(lambda x: aims(_maps(read, x, model)))
            first = loss(start)
            picture, films, finished = self._descent(loss, start, steps)
            last = loss(picture)
        terms = ("content", "style", "total")
        numbers = {term: (float(a), float(b)) for term, a, b in zip(terms, first, last, strict=True)}
        if not picture.isfinite().all():
            raise NonFiniteResult("the picture holds NaN or infinity. Lower the rate, or use optimiser='adam'")
        sources = ((f"content: {photo.name}", photo), (f"style: {manner.name}", manner))
        frames = (np.stack(films) if films else np.empty((0, *_array(picture).shape))) * 255
        return Scenery(_array(picture), sources, numbers, frames.round().astype(np.uint8)), finished

    def _loss(self, aims: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """From a picture (1, C, H, W): content, style and the weighted total."""

        def loss(picture: Tensor) -> tuple[Tensor, ...]:
            content, style = aims(picture)
            smooth = total_variation(picture, 1.0)[0] / picture[0, 0].numel()
            return content, style, self.content * content + self.style * style + self.tv * smooth

        return loss

    def _descent(
        self, loss: Callable[[Tensor], tuple[Tensor, ...]], start: Tensor, steps: Any
    ) -> tuple[Tensor, list[np.ndarray[Any, np.dtype[np.float32]]], bool]:
        """The picture, the states that were kept, and whether all steps were made."""
        picture, films = start.clone().requires_grad_(), []
        marks = {round(k * self.steps / (self.frames - 1)) for k in range(self.frames - 1)}
        optimiser, best, finished = self._optimiser(picture), Best(start), True

        def closure() -> float:
            total = loss(picture)[2]
            (picture.grad,) = torch.autograd.grad(total, picture)
            value = float(total.detach())
            best.see(picture, value)
            return value

        try:
            for step in range(self.steps):
                films += [_array(picture)] if step in marks else []
                optimiser.step(closure)
                steps.set_postfix_str(f"loss {best.value:.3g}", refresh=False)
                steps.update()
                with torch.no_grad():
                    picture.clamp_(0, 1)
            best.see(picture, float(loss(picture)[2].detach()))
        except KeyboardInterrupt:
            finished = False
        return best.picture, [*films, _array(best.picture)] if self.frames else [], finished

    def _optimiser(self, picture: Tensor) -> torch.optim.Optimizer:
        if self.optimiser == "adam":
            return torch.optim.Adam([picture], lr=self.rate or 0.02)
        return PlainLBFGS([picture], lr=self.rate or 1.0, max_iter=1, history_size=20)


class Best:
    """The best picture so far: a step can lead astray, most of all where it was cut off at black or white."""

    def __init__(self, picture: Tensor) -> None:
        self.picture, self.value = picture, float("inf")

    def see(self, picture: Tensor, value: float) -> None:
        if value < self.value:
            self.picture, self.value = picture.detach().clone(), value


@dataclass(frozen=True)
class Aims:
    """What a picture should come to: the content's activations (1, C, H, W) and the style's Gram matrices (1, C, C)."""

    layer: str
    content: Tensor
    grams: Mapping[str, Tensor]

    @classmethod
    def of(cls, photo: Mapping[str, Tensor], manner: Mapping[str, Tensor], layer: str, style: Sequence[str]) -> Aims:
        """From the activations of both pictures. Raises DegenerateResult where there is nothing to compare with."""
        aims = cls(layer, photo[layer].detach(), {name: gram(manner[name].detach()) for name in style})
        for name, values in ((layer, aims.content), *aims.grams.items()):
            if not values.any():
                raise DegenerateResult(
                    f"layer {name!r} is zero everywhere, so it knows no content or style. Choose others"
                )
        return aims

    def __call__(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Content's and style's squared distance from their aims, as shares of the aims' own squared size."""
        content = _share(maps[self.layer], self.content)
        style = torch.stack([_share(gram(maps[name]), aim) for name, aim in self.grams.items()]).mean()
        return content, style


def _share(values: Tensor, aim: Tensor) -> Tensor:
    return (values - aim).square().sum() / aim.square().sum()


def _maps(read: Callable[[Tensor], Mapping[str, Any]], image: Tensor, model: Model) -> dict[str, Tensor]:
    found = read(image.to(model.dtype))
    return {name: values.float() for name, values in found.items() if isinstance(values, Tensor) and name}


def _tensor(model: Model, photo: Photo, side: int) -> Tensor:
    """A photograph (1, C, H, W) whose longer side is so many px."""
    image = torch.from_numpy(model.input.channels_of(photo)).permute(2, 0, 1)[None]
    factor = side / max(photo.size)
    size = [max(1, round(each * factor)) for each in photo.size]
    return F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1).to(model.device)


def _array(picture: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return picture.detach()[0].permute(1, 2, 0).float().cpu().numpy().copy()  # (H, W, C)
