"""Widget: what a notebook shows of an explorer. Only this module needs anywidget.

Python and the page share traits: the page writes `wish`, what is chosen; Python answers in the others. Work is done in
the thread that runs cells, and between these, so that no cell ever meets the network while it is borrowed; interrupting
the kernel stops it, and the page says so while it waits. Some kernels read what pages write in another thread."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self._home: asyncio.AbstractEventLoop | None = None  # where cells run
        with suppress(RuntimeError):  # without a kernel there is none
            self._home = asyncio.get_running_loop()
        self._thread = threading.current_thread()
        self.observe(self._listen, names="wish")

    def _listen(self, change: Any) -> None:
        """Grant a wish in the thread that runs cells."""
        if self._home is None or threading.current_thread() is self._thread:
            self._grant(change["new"])
        else:
            self._home.call_soon_threadsafe(self._grant, change["new"])

    def _grant(self, wish: dict[str, Any]) -> None:
        """Answer a wish part by part, each shown as soon as it is there."""
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
