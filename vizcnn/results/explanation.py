"""Explanation: why a network says what it says of one image, from several sides, with how far each can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from vizcnn.results.explained import Explained
from vizcnn.results.explanation_page import write_page
from vizcnn.results.explanation_picture import draw_explanation
from vizcnn.results.explanation_words import write_sentences
from vizcnn.results.records import make_even

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation(Explained):
    """What `vizcnn.explain` has found. `.html` is the whole page, the other pictures are for one look.

    photo, seen: the image, and the box of it that the network saw.
    answers: the top answers, best first. asked: the one that is explained. rival: the one it is compared with, the best
        of the others. quantity, score: the number that is explained, such as the logit or the probability of `asked`,
        what it is called and how large it is.
    maps: one of each method, with how far it can be believed. left_out: methods without a map, each with the reason.
    consensus: where the supported maps agree; None where fewer than two are supported.
    rather: the occlusion map of the answer less its rival; None where there is none.
    units: the channels of `layer`, of so many `channels`, whose absence costs the answer most. tiles_are: what their
        pictures are: `optimised`, `crops` of the photographs of an index, or "". units_note: why there are none.
    flip: the set of cells whose covering changes what the network says, none of which can be left out; None where none
        was found. keep: the covering that leaves only cells that alone keep it. cells: how many there are.
    """

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The maps by method, each (H, W), and `consensus` and `rather` where there are any."""
        found = {f"map {one.method}": one.values for one in self.maps}
        found |= {"consensus": self.consensus.ranks} if self.consensus else {}
        return found | ({"rather": self.rather.values} if self.rather else {})

    def summary(self) -> dict[str, Any]:
        return {**self.plain_summary(), "sentences": list(self.sentences)}

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each map, with its verdict."""
        named = [(one["method"], one) for one in summary["maps"]]
        named += [("rather than the runner-up", summary["rather"])] * bool(summary["rather"])
        return make_even(
            {
                "image": summary["image"],
                "target": summary["target"]["label"],
                "probability": summary["target"]["probability"],
                "runner_up": summary["runner_up"]["label"],
                "method": name,
                "verdict": one["trust"]["verdict"],
                "need": one["trust"]["need"],
                "contrast": one["trust"]["contrast"],
                "place": one["place"],
            }
            for name, one in named
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in three or four sentences."""
        return write_sentences(self)

    def describe(self) -> str:
        """The sentences, and a line for each map."""
        verdicts = [f"{one.method}: {one.trust.describe()}" for one in self.maps]
        left_out = [f"{name}: not made, {reason}" for name, reason in self.left_out]
        return "\n".join([f"{self.photo.name}: {self.sentences[0]}", *self.sentences[1:], *verdicts, *left_out])

    def figure(self) -> Figure:
        """The whole page as a picture for one look."""
        return draw_explanation(self)

    def _page(self) -> str:
        return write_page(self, self.manifest())
