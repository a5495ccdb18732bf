"""Session: what a widget wishes for, answered part by part, as plain values that a page can show.

A wish is what is chosen on the page; an update is the name of a part of the page with its new values. Whatever goes
wrong becomes the text of that part: a page shows no traceback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from vizcnn import progress
from vizcnn.errors import VizcnnError, to_one_line
from vizcnn.exploring import entries
from vizcnn.exploring.explorer import Explorer
from vizcnn.process import collect_warnings

Update = tuple[str, dict[str, Any]]
Told = Callable[[str, float | None], None]

_PARTS = {  # what has to be made anew when a choice changes, what is quick first
    "image": ("photo", "answers", "unit", "map"),
    "target": ("answers", "map"),
    "method": ("map",),
    "trust": ("map",),
    "boxes": ("photo", "answers", "unit"),
    "layer": ("unit",),
    "unit": ("unit",),
    "again": ("answers", "unit", "map"),
}
_FAULTY = object()
_SECONDS = 0.1  # between two notices of progress


class Session:
    """One explorer and the wishes that come from its page, one after the other."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.layers: dict[str, tuple[int, int, int]] = {}
        self.granted: dict[str, Any] = {}

    def begin(self) -> Iterator[Update]:
        """All parts of the page, for what the explorer has chosen."""
        explorer = self.explorer
        try:
            self.layers = explorer.list_layers()
        except Exception:  # the page says in its other parts what is wrong with the network
            self.layers = {}
        layer = next(reversed(self.layers), "")
        yield "about", entries.enter_explorer(explorer, self.layers)
        first = {
            "id": "",
            "image": explorer.image,
            "target": explorer.target,
            "method": explorer.method,
            "trust": False,
            "boxes": [list(box) for box in explorer.boxes],
            "layer": layer,
            "unit": 0,
            "again": 0,
        }
        yield "wish", first
        self.granted = first
        for part in _PARTS["image"]:
            yield part, self._make(part)

    def grant(self, wish: Mapping[str, Any], told: Told | None = None) -> Iterator[Update]:
        """The parts that differ from those of the wish before.

        told: hears of progress while a part is made; without it bars appear as ever."""
        before, self.granted = self.granted, {**wish}
        changed = [name for name in _PARTS if wish.get(name) != before.get(name)]
        fault = self._choose(changed)
        wanted = {part for name in changed for part in _PARTS[name]}
        for part in [part for part in _PARTS["image"] if part in wanted]:
            yield part, self._make(part, fault, told)

    def _choose(self, changed: list[str]) -> str:
        """Tell the explorer what has been chosen. Returns what is wrong with it, or ""."""
        explorer, wish = self.explorer, self.granted

        def choose() -> dict[str, Any]:
            if "image" in changed:
                explorer.choose_image(wish["image"])
            if "target" in changed:
                explorer.choose_target(wish["target"])
            if "method" in changed:
                explorer.choose_method(wish["method"])
            if "boxes" in changed or "image" in changed:
                explorer.cover_parts(wish["boxes"])
            return {}

        fault = str(_guard(choose).get("error", ""))
        if fault:  # whatever is chosen next differs from it, and is tried
            self.granted = {**wish, **dict.fromkeys(changed, _FAULTY)}
        return fault

    def _make(self, part: str, fault: str = "", told: Told | None = None) -> dict[str, Any]:
        if fault:
            return {"error": fault}
        makers: dict[str, Callable[[], dict[str, Any]]] = {
            "photo": lambda: entries.enter_picture(self.explorer),
            "answers": lambda: entries.enter_answers(self.explorer.answer(), self.explorer.map),
            "map": self._make_map,
            "unit": self._read_unit,
        }
        with progress.tell(_slow_down(told)) if told else nullcontext():
            return _guard(makers[part])

    def _make_map(self) -> dict[str, Any]:
        return entries.enter_map(self.explorer.make_map(trust=bool(self.granted.get("trust"))))

    def _read_unit(self) -> dict[str, Any]:
        layer = self.granted.get("layer")
        if not layer:
            return {"error": "No layer of this network gives maps of the image."}
        return entries.enter_unit(self.explorer.read_unit(layer, self.granted.get("unit", 0)))


def _guard(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is made, with the warnings on the way; where that fails, why."""
    with collect_warnings() as said:
        try:
            made = make()
        except KeyboardInterrupt:
            made = {"error": "Interrupted. Choose again to go on."}
        except VizcnnError as error:
            made = {"error": str(error)}
        except Exception as error:  # of the person's own network or plugin: it is shown where they look
            made = {"error": to_one_line(f"{type(error).__name__}: {error}")}
    return made | ({"notes": [to_one_line(text) for text in said]} if said else {})


def _slow_down(told: Told) -> Told:
    """Tell the first notice of each bar, and then at most ten in a second."""
    latest, named = 0.0, ""

    def tell(label: str, share: float | None) -> None:
        nonlocal latest, named
        if label != named or time.monotonic() - latest >= _SECONDS:
            latest, named = time.monotonic(), label
            told(label, share)

    return tell
