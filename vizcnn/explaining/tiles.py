"""Tiles: what the units of an explanation like to see, real crops from an index, or pictures made for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vizcnn.ascent import Objective, optimize
from vizcnn.ascent.recipe import find_recipe
from vizcnn.errors import LayerNotFound, ParameterError, VizcnnError
from vizcnn.explaining.question import Question
from vizcnn.inputs.photo import select_channels
from vizcnn.models.targets import Target
from vizcnn.models.terms import Unit
from vizcnn.results import Tile
from vizcnn.scanning import Index, crop_best, read_maps, refuse_other_maps, refuse_other_network

_CROPS, _SIDE = 4, 96  # crops of a unit; px of a crop, and of the shorter side of a picture
_RATE = 0.1  # of an ascent of few steps


@dataclass(frozen=True)
class Crops:
    """Units' best crops from the index of a scan, which is checked before anything is computed."""

    index: Index

    @classmethod
    def open(cls, folder: str, question: Question, layer: str) -> Crops:
        """Raises OutputError, and ParameterError for the index of another network or without the layer."""
        index = Index.open(folder)
        refuse_other_network(index, str(question.subject.identity["weights_sha256"]))
        try:
            index.tally(layer)
        except LayerNotFound as error:
            raise ParameterError(
                f"{folder} has nothing of layer {layer!r}, whose units are shown. Scan that layer too: vizcnn scan "
                f"IMAGES -m {question.model.name} --layers {layer}"
            ) from error
        return cls(index)

    def cut(self, question: Question, layer: str, channels: Sequence[int]) -> list[tuple[Tile, ...]]:
        """For each channel its best crops."""
        units = [Unit(layer, channel) for channel in channels]
        maps = read_maps(self.index, question.model, units, _CROPS, progress=question.subject.progress)
        refuse_other_maps(self.index, units, _CROPS, maps)
        return [
            tuple(Tile(pixels, text) for text, pixels in crop_best(self.index, unit, _CROPS, (_SIDE, _SIDE), maps))
            for unit in units
        ]


def make_pictures(question: Question, layer: str, channels: Sequence[int], steps: int) -> list[tuple[Tile, ...]]:
    """For each channel a small picture that was made to excite it, in a few steps; nothing for one that never responds.

    Raises VizcnnError where the network cannot be followed backward."""
    model = question.model
    recipe = replace(find_recipe("robust"), steps=steps, rate=_RATE)
    objectives = [Objective(Target(((1.0, Unit(layer, channel)),))) for channel in channels]

    def make(size: tuple[int, int]) -> list[tuple[Tile, ...]]:
        outcome = optimize(
            model, objectives, recipe, size=size, seed=question.subject.seed, progress=question.subject.progress
        )
        if not outcome.finished:
            raise KeyboardInterrupt
        pictures = outcome.pictures.permute(0, 2, 3, 1).float().cpu().numpy()  # (N, H, W, C)
        shown = select_channels(pictures, model.input.display)
        return [
            (Tile(pixels, f"{score:.3g}"),) if moved else ()
            for pixels, score, moved in zip(shown, outcome.scores.tolist(), outcome.moved.tolist(), strict=True)
        ]

    whole = question.subject.size
    scale = min(1.0, _SIDE / min(whole))
    small = (max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale)))
    try:
        return make(small)
    except VizcnnError:  # a network that takes one size only
        if small == whole:
            raise
        return make(whole)
