"""The words of an explanation: a few sentences, each with a number that stands on the page too."""

from __future__ import annotations

from collections.abc import Iterator

from vizcnn.results.drawing import shorten
from vizcnn.results.explained import Explained, join_names

_NAME = 36  # letters of a class
_SENTENCES = 4
_AGAINST = ", but what speaks against it is stronger"


def write_sentences(found: Explained) -> tuple[str, ...]:
    """Three or four sentences. What is not supported is not said."""
    said = [_say_answer(found), _say_where(found), _say_change(found), *_say_more(found)]
    return tuple(said[:_SENTENCES])


def name(label: str) -> str:
    """A class as a sentence names it."""
    return f"“{shorten(label, _NAME)}”"


def cut_place(place: str) -> str:
    """Where a place lies, without its px."""
    return place.partition(" (")[0]


def count_cells(count: int, total: int) -> str:
    """`3 of 36 parts`."""
    return f"{count} of {total} part{'s' * (total != 1)}"


def _say_answer(found: Explained) -> str:
    top, asked = found.top, found.asked
    if not found.is_about_top:
        return (
            f"The network says {name(top.label)} ({top.amount}); this page is about {name(asked.label)} "
            f"({asked.amount})."
        )
    return (
        f"The network says {name(top.label)} ({top.amount}); next comes {name(found.rival.label)} "
        f"({found.rival.amount})."
    )


def _say_where(found: Explained) -> str:
    supported, consensus = found.supported, found.consensus
    if not supported:
        return "No map passes the test against random maps, so nothing is said of where the network looks."
    names, what = join_names([one.method for one in supported]), f"What speaks most for {name(found.asked.label)} lies"
    need = min(one.trust.need for one in supported)
    if consensus is None:
        (one,) = supported
        return (
            f"{what} {_say_place(one.place)}, says {names} (better than {int(need)} of 100 random maps)"
            f"{_AGAINST * one.is_rather_against}; no second method confirms it."
        )
    beaten = "all 100" if need == 100 else f"at least {int(need)} of 100"
    passed = f"{names} each beat {beaten} random maps"
    if not consensus.is_agreed:
        return f"{passed}, but they do not point at the same place (likeness {consensus.likeness:.2f})."
    return f"{what} {_say_place(consensus.place)}: {passed}, and they agree (likeness {consensus.likeness:.2f})."


def _say_place(place: str) -> str:
    return f"in the {cut_place(place)}" if place else "nowhere in particular"


def _say_change(found: Explained) -> str:
    flip, keep, top = found.flip, found.keep, found.top
    if flip is None:
        return (
            f"No covering of parts of the image that was tried changes the answer: it stays {name(top.label)}"
            + " even with everything covered" * (keep is not None and bool(keep.covered.all()))
            + "."
        )
    count = int(flip.covered.sum())
    said = (
        f"Covering {count_cells(count, found.cells)} of the image changes the answer to {name(flip.answer.label)} "
        f"({flip.answer.amount})"
    )
    if keep is None:
        return f"{said}."
    shown = found.cells - int(keep.covered.sum())
    if shown == 0:
        return f"{said}, though with everything covered it is {name(top.label)} again ({keep.answer.amount})."
    return f"{said}; {shown} alone {'is' if shown == 1 else 'are'} enough for {name(top.label)} ({keep.answer.amount})."


def _say_more(found: Explained) -> Iterator[str]:
    rather = found.rather
    if rather and rather.is_supported and rather.place:
        yield (
            f"What speaks most for {name(found.asked.label)} rather than {name(found.rival.label)} lies "
            f"{_say_place(rather.place)} (better than {int(rather.trust.need)} of 100 random maps)"
            f"{_AGAINST * rather.is_rather_against}."
        )
    if found.units and found.units[0].effect > 0:
        one, score = found.units[0], found.score
        yield (
            f"Of {found.channels} features that the network computes last, {one.target} counts most: without it the "
            f"{found.quantity} of {name(found.asked.label)} changes from {score:.3g} to {score - one.effect:.3g}."
        )
