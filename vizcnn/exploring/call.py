"""explore(): a network and some images to be asked one question after another, in a notebook."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from vizcnn.errors import ParameterError, VizcnnError, VizcnnWarning
from vizcnn.exploring.explorer import Explorer
from vizcnn.models.model import Model

_EXTRA = "pip install 'vizcnn[notebook]'"


def explore(
    model: Model,
    images: Any,
    target: Any = None,
    *,
    methods: Sequence[Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Exploration:
    """What does the network say when this part is covered, and what do its units see? Asked with the pointer.

    In a notebook the answer is a widget: choose an image, a target and a method; point at the map to read its numbers;
    click to cover a part and see the answer change, which is a run of the network each time; step through layers and
    units. It needs the extra `notebook`. Where no widget can run, as on GitHub or without the extra, the first map is
    there as a still picture. What is shown as a number is also a method of what this returns.

    model: any network that a probe takes. Of a black box there are no units.
    images: as for a probe; files are read when they are looked at. Of more than 1000 the first can be chosen.
    target: what to begin with, as for a probe; by default each image's predicted class.
    methods: names of probes that make maps, and such probes with options; the first is shown first. By default all that
        are installed, occlusion first.
    seed, progress: as for a probe.

    Raises ParameterError, and what reading the first image raises. What goes wrong afterwards is said in the widget.

        >>> import vizcnn
        >>> found = vizcnn.explore(vizcnn.load("tiny"), "sample:grace_hopper", "military uniform", methods=["cam"])
        >>> answers = found.cover(40, 16, 12, 24)
        >>> answers.after < answers.before
        True
        >>> found.make_map().values.shape, found.read_unit("layer2", 27).values.shape
        ((64, 64), (16, 16))
    """
    return Exploration(model, images, target, methods, seed=seed, progress=progress)


class Exploration(Explorer):
    """What `vizcnn.explore` gives: an explorer that shows itself in notebooks."""

    _widget: Any = None

    def widget(self) -> Any:
        """The widget, made once: for layouts of your own. Raises ParameterError where anywidget is not installed."""
        if find_spec("anywidget") is None:
            raise ParameterError(f"explore: the widget needs anywidget, which is not installed. {_EXTRA}")
        if self._widget is None:
            from vizcnn.exploring.widget import ExplorerWidget

            self._widget = ExplorerWidget(self)
        return self._widget

    def _repr_mimebundle_(self, **how: Any) -> dict[str, Any]:
        if find_spec("anywidget") is None:
            warnings.warn(f"a still picture: the widget needs anywidget. {_EXTRA}", VizcnnWarning, stacklevel=2)
            return self._make_still(f"To explore it in the notebook: {_EXTRA}")
        bundle = self.widget()._repr_mimebundle_(**how)
        shown = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**(shown or {}), **self._make_still()}

    def _make_still(self, more: str = "") -> dict[str, Any]:
        """The latest map as a picture, for where no widget can run."""
        try:
            found = self.map or self.make_map()
        except VizcnnError as error:
            return {"text/plain": f"{self!r}\n{error}\n{more}".rstrip()}
        picture = found.result._repr_mimebundle_()
        return {**picture, "text/plain": f"{picture['text/plain']}\n{more}".rstrip()}
