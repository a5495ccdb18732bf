"""explain(): why a network says what it says of one image, from several sides, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from vizcnn import progress
from vizcnn.errors import DegenerateResult, Interrupted, ParameterError, VizcnnError
from vizcnn.evaluation.coverings import GRID, HALVES, Coverings, cover_image
from vizcnn.explaining import changes, maps
from vizcnn.explaining.question import ask, refuse_other_networks
from vizcnn.explaining.tiles import Crops, make_pictures
from vizcnn.explaining.units import SHOWN, choose_layer, measure_effects
from vizcnn.models.borrowing import borrow
from vizcnn.models.determinism import score_images
from vizcnn.models.model import Model
from vizcnn.models.precision import advise_precision
from vizcnn.models.remembering import promise_unchanged
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Evidence, Explanation, Tile, UnitEffect

_METHODS = {False: maps.Effort(strides=3, steps=32, masks=600), True: maps.Effort(strides=2, steps=12, masks=0)}
_SHORT = changes.Effort(steps=8, candidates=6)
_CHANGES = {False: (changes.Effort(steps=12, candidates=12), _SHORT), True: (_SHORT,)}
_ASCENT = {False: 48, True: 24}
_QUICK_HALVES = 16
_SMALL = 0.2  # of a run of the network: one step of a small picture costs about three of these


def explain(
    model: Model,
    image: Any,
    target: Any = None,
    *,
    quick: bool = False,
    index: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Explanation:
    """Why does the network say that? Several maps with how far each can be believed, units, and what would change the
    answer, on one page.

    model: a classifier of at least two classes; of a black box there are neither gradients nor units.
    image: one, as for a probe. target: a class; by default what the network says. It is compared with the best of the
        other classes.
    quick: without rise, with 16 random halves in place of 64 and coarser maps: a third to two thirds of the time.
    index: the folder of a scan of `layer`: units are then shown by their best crops, else by pictures made for them.
    seed: of masks, halves, null maps and pictures.
    progress: show one bar for all on stderr, and before it what it will cost.

    Raises UnsuitableNetwork for other networks, TargetError for what is no class, and what the probes raise.

        >>> import vizcnn
        >>> found = vizcnn.explain(vizcnn.load("tiny"), "sample:grace_hopper", quick=True, progress=False)
        >>> len(found.sentences) in (3, 4)
        True
    """
    return Explain(quick=quick, crops=index)(model, image, target, seed=seed, progress=progress, strict=True)


class Explain(Probe[Explanation]):
    """Why does the network say that of this image?

    What `vizcnn.explain` does, as an object of options."""

    needs_network = False

    quick: bool = param(False, "Without rise, with 16 random halves and coarser maps.")
    crops: str | None = param(None, "The index of a scan: shows units by their best crops.")

    def _prepare(self, model: Model, *args: Any, **how: Any) -> AbstractContextManager[Subject]:
        if isinstance(model, Model):
            with borrow(model, type(self).__name__):
                refuse_other_networks(model)  # before a target is looked for, of which messages would speak
        return super()._prepare(model, *args, **how)

    def compute(self, subject: Subject) -> Explanation:
        if len(subject.photos) != 1:
            raise ParameterError(f"explain takes one image, got {len(subject.photos)}. Call it for each of them")
        with promise_unchanged(subject.model):
            try:
                return _Work(self, subject.run()).do()
            except Interrupted:  # a method's own partial result is no explanation
                raise KeyboardInterrupt from None


class _Work:
    """One explanation in the making: its parts one after the other, under one bar."""

    def __init__(self, options: Explain, subject: Subject) -> None:
        self.options, self.question = options, ask(subject)
        self.subject, self.model = subject, subject.model
        self.halves = _QUICK_HALVES if options.quick else HALVES
        self.methods = _METHODS[options.quick].list_methods(subject.size)
        self.layer, self.units_note = self._choose_layer()
        self.crops = Crops.open(options.crops, self.question, self.layer) if options.crops and self.layer else None

    def _choose_layer(self) -> tuple[str, str]:
        """The layer whose units are looked at, or "" and why there is none."""
        if self.model.is_black_box:
            if self.options.crops:
                raise ParameterError("a black box has no units to show from an index. Leave index out")
            return "", "Not made: units (a black box shows its answers alone)"
        try:
            return choose_layer(self.question), ""
        except VizcnnError as error:
            if self.options.crops:
                raise
            return "", f"Not made: units ({error.fact})"

    def do(self) -> Explanation:
        price = self._list_prices()
        with progress.Whole(sum(price.values()), "explain", self.model.name, shown=self.subject.progress) as whole:
            with whole.part(price["coverings"]):
                coverings = self._cover()
            judged = []
            for name, probe, _, _ in self.methods:
                with whole.part(price[name]):
                    judged.append(maps.make_map(self.question, name, probe, coverings))
            with whole.part(price["changes"]):
                flip, keep = changes.find_changes(self.question, coverings, _CHANGES[self.options.quick])
            with whole.part(price["units"]):
                units, channels, tiles_are = self._find_units()
        found = tuple(one for each in judged for one in each.maps)
        left_out = [one for each in judged for one in each.left_out]
        left_out += [("RISE", "left out to be quick")] * self.options.quick
        subject, question = self.subject, self.question
        return Explanation(
            provenance=subject.provenance(layer=self.layer or "none", runs=coverings.runs, halves=self.halves),
            photo=subject.photos[0],
            seen=subject.seen[0],
            answers=question.best,
            asked=question.asked,
            rival=question.rival_answer,
            quantity=subject.short_quantity(0),
            score=question.score,
            maps=found,
            left_out=tuple(left_out),
            consensus=maps.find_consensus(question, found),
            rather=_find_rather(judged),
            units=units,
            layer=self.layer,
            channels=channels,
            tiles_are=tiles_are,
            units_note=self.units_note,
            flip=flip,
            keep=keep,
            cells=coverings.alone,
        )

    def _list_prices(self) -> dict[str, float]:
        """About how many runs of the network each part costs."""
        cells = min(GRID, self.subject.size[0]) * min(GRID, self.subject.size[1])
        several = 3 if self.question.rival != self.question.contrast else 2
        price: dict[str, float] = {"coverings": cells + self.halves + 1}
        for name, probe, runs, shared in self.methods:
            possible = not (probe.needs_network and self.model.is_black_box)
            price[name] = possible * runs * (1 if shared else min(2, several))
        price["changes"] = sum(effort.runs for effort in _CHANGES[self.options.quick])
        steps = 0 if self.crops else 3 * _SMALL * SHOWN * _ASCENT[self.options.quick]
        price["units"] = SHOWN + steps if self.layer else 0
        return price

    def _cover(self) -> Coverings:
        question, subject = self.question, self.subject
        with torch.no_grad():
            targets = [question.answer, question.rival]
            scores = score_images(self.model, question.image[None], targets)[0].double().cpu().numpy()  # (2,)
        coverings = cover_image(
            self.model,
            question.image,
            targets,
            scores,
            largest=subject.largest(0),
            halves=self.halves,
            seed=subject.seed,
            layout=subject.layout,
            shown=subject.progress,
        )
        if not coverings.drops[:, 0].any():
            raise DegenerateResult(
                f"no covering of any part of the image changes {question.answer} by more than rounding (it stays "
                f"{question.score:g}), so there is nothing to explain by parts of it: a dead unit, a network that does "
                "not see the input, or one in half precision. Try another target, or the probability, p(CLASS)"
                f"{advise_precision(self.model.dtype)}"
            )
        return coverings

    def _find_units(self) -> tuple[tuple[UnitEffect, ...], int, Any]:
        """The strongest units, of how many, and what their pictures are."""
        if not self.layer:
            return (), 0, ""
        effects = measure_effects(self.question, self.layer)
        channels = effects.list_strongest()
        if not channels:
            self.units_note = f"No single channel of {self.layer} lowers the answer when it is set to zero"
        tiles: list[tuple[Tile, ...]] = [()] * len(channels)
        kind: Literal["optimised", "crops", ""] = ""
        if self.crops:
            tiles, kind = self.crops.cut(self.question, self.layer, channels), "crops"
        elif channels:
            try:
                steps = _ASCENT[self.options.quick]
                tiles, kind = make_pictures(self.question, self.layer, channels, steps), "optimised"
            except VizcnnError:  # no gradients: the units are shown by where they are active alone
                pass
        shown = tuple(
            UnitEffect(f"{self.layer}:{channel}", float(effects.losses[channel]), effects.activations[channel], tile)
            for channel, tile in zip(channels, tiles, strict=True)
        )
        return shown, len(effects.losses), kind


def _find_rather(judged: Sequence[maps.Judged]) -> Evidence | None:
    return next((one.rather for one in judged if one.rather), None)
