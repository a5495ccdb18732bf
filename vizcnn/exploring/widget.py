"""Widget: what a notebook shows of an explorer. Only this module needs anywidget.

Python and the page share traits: the page writes `wish`, what is chosen; Python answers in the others. Work is done
where the kernel runs cells, so that no cell ever meets the network while it is borrowed; interrupting the kernel stops
it, and the page says so while it waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anywidget
import traitlets

from vizcnn.exploring.assembly import assemble_script
from vizcnn.exploring.explorer import Explorer
from vizcnn.exploring.session import Session


class ExplorerWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """Shows an explorer."""

    about = traitlets.Dict().tag(sync=True)
    photo = traitlets.Dict().tag(sync=True)
    answers = traitlets.Dict().tag(sync=True)
    map = traitlets.Dict().tag(sync=True)
    unit = traitlets.Dict().tag(sync=True)
    wish = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict({"done": "", "busy": "", "share": None}).tag(sync=True)

    def __init__(self, explorer: Explorer) -> None:
        self._session = Session(explorer)
        super().__init__(_esm=assemble_script(), **dict(self._session.begin()))
        self.observe(self._grant, names="wish")

    def _grant(self, change: Any) -> None:
        """Answer a wish part by part, each shown as soon as it is there."""
        wish = change["new"]
        done: dict[str, Any] = {"done": wish.get("id", ""), "busy": "", "share": None}

        def tell(label: str, share: float | None) -> None:
            self.status = {"done": self.status["done"], "busy": label, "share": share}

        try:
            with _take_interrupts():
                tell("", None)
                for part, value in self._session.grant(wish, tell):
                    setattr(self, part, value)
        except KeyboardInterrupt:  # between two parts
            done["error"] = "Interrupted. Choose again to go on."
        finally:
            self.status = done


@contextmanager
def _take_interrupts() -> Iterator[None]:
    """While the context is open, an interrupt of the kernel is a KeyboardInterrupt: outside cells it is ignored."""
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
