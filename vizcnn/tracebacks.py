"""Tracebacks: what IPython and Jupyter show of an error of ours: the person's own lines and the message.

IPython asks an exception that has a method `_render_traceback_` how it wants to be shown. Nothing is hidden for good:
`%tb`, and every error after `%xmode Verbose`, show the way through vizcnn. Plain Python shows all of it, as ever.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from sysconfig import get_paths
from types import FrameType, TracebackType
from typing import Any

HINT = "(%tb shows the way through vizcnn)"

_INSTALLED = {"site-packages", "dist-packages"}  # a part of the path of every library, wherever Python lies
_WHOLE = ("Verbose", "Docs")  # modes of IPython whose point is to show all


def render(error: BaseException) -> list[str]:
    """What IPython shows of an error: the lines of its person's own code that led there, and the message."""
    shell = _find_shell()
    if shell is None:
        return traceback.format_exception(error)
    formatter = shell.InteractiveTB
    if formatter.mode in _WHOLE or _is_asked_for():
        whole: list[str] = formatter.structured_traceback(type(error), error, error.__traceback__)
        return whole
    steps = _link([each for one in _follow_causes(error) for each in _list_own_steps(one)])
    if steps is None:
        return [*formatter.get_exception_only(type(error), error), HINT]
    return [*formatter.structured_traceback(type(error), _without_causes(error), steps, tb_offset=0), HINT]


def _find_shell() -> Any:
    """The running IPython; None where there is none. It is not imported: who shows a traceback has done that."""
    module = sys.modules.get("IPython")
    return module and module.get_ipython()


def _is_asked_for() -> bool:
    """Whether this is the magic %tb at work. It renders as a new error is rendered, so its frame is all that tells."""
    frame: FrameType | None = sys._getframe()
    while frame and not (frame.f_code.co_name == "tb" and "IPython" in Path(frame.f_code.co_filename).parts):
        frame = frame.f_back
    return frame is not None


def _follow_causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: of what a network raises, the person's line is in the cause."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _list_own_steps(error: BaseException) -> Iterator[TracebackType]:
    step = error.__traceback__
    while step is not None:
        if _is_own(step.tb_frame.f_code.co_filename):
            yield step
        step = step.tb_next


@cache
def _is_own(file: str) -> bool:
    """Whether code is the person's: neither ours, nor of Python, nor of another library."""
    if file.startswith("<"):  # made while Python runs: a line typed into IPython, the __init__ of a dataclass
        return file.startswith("<ipython-input")
    folders = {Path(__file__).parent, *(Path(get_paths()[name]) for name in ("stdlib", "platstdlib"))}
    path = Path(file)
    return not (_INSTALLED & {*path.parts} or folders & {*path.parents, *path.resolve().parents})


def _link(steps: list[TracebackType]) -> TracebackType | None:
    """One traceback of these steps, and of no others."""
    linked: TracebackType | None = None
    for step in reversed(steps):
        linked = TracebackType(linked, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return linked


def _without_causes(error: BaseException) -> BaseException:
    """A copy of an error that was raised from nothing, since IPython shows each cause with all of its steps."""
    kind = type(error)
    copy = kind.__new__(kind)
    copy.args = error.args
    vars(copy).update(vars(error))
    return copy
