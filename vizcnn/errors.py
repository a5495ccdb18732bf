"""The errors of vizcnn. Every message is the fact, the value got, the remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from vizcnn.tracebacks import render

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_END = re.compile(r"(?<=[a-z\d)]{2})\. (?=[A-Z])")  # of a sentence, and not of `St.` before a name


def escape_invisible(text: str) -> str:
    """The text with an escape such as `\\x1b` for each character that has no sign: such a character steers a terminal,
    turns the direction of what stands behind it, makes an SVG invalid or cannot be written at all. Ends of lines and
    tabs stay."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def to_one_line(message: object) -> str:
    """A message without ends of lines and tabs, and with escapes for characters that have no sign."""
    lines = (line.strip() for line in str(message).replace("\t", " ").splitlines())
    return escape_invisible(" ".join(line for line in lines if line))


class VizcnnError(Exception):
    """Base of all errors raised on purpose. Its message is one line, whatever names and values it quotes."""

    _said = ""  # the message before anything was put in front of it

    def __str__(self) -> str:
        return to_one_line(super().__str__())

    @property
    def fact(self) -> str:
        """The first sentence, without what was being done and without the remedy."""
        return _END.split(self._said or str(self), maxsplit=1)[0]

    def add_context(self, context: str) -> None:
        """Put what was being done in front of the message, on the error's way out."""
        self._said = self._said or str(self)
        self.args = (f"{context}: {self}",)

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show: the person's own lines and the message, see `vizcnn.tracebacks`."""
        return render(self)


class ParameterError(VizcnnError, ValueError):
    """An option is unknown, of the wrong type or out of range."""


class ImageError(VizcnnError, ValueError):
    """A file or array is not an image that can be shown to a network."""


class ShapeError(VizcnnError, ValueError):
    """A tensor does not have the shape that the network or the probe needs."""


class TargetError(VizcnnError, ValueError):
    """The thing to explain does not exist in this network or is not one number per image."""


class NotInImage(TargetError):  # noqa: N818
    """The thing to explain is not in this image: no pixel is predicted so, or no such box is found. Of several images
    this one is left out."""


class LayerNotFound(VizcnnError, LookupError):  # noqa: N818 - a name that reads as a sentence, like FileNotFoundError's
    """The network has no layer of this name."""


class ProbeNotFound(VizcnnError, LookupError):  # noqa: N818
    """No probe of this name is installed, or it is installed and cannot be loaded."""


class ModelNotFound(VizcnnError, LookupError):  # noqa: N818
    """The model's name, file or factory does not exist."""


class NetworkError(VizcnnError, RuntimeError):
    """The network's own forward raised an error, which is this one's `__cause__`."""


class NotDifferentiable(VizcnnError, RuntimeError):  # noqa: N818
    """The target has no gradient with respect to what is asked."""


class NonFiniteResult(VizcnnError, RuntimeError):  # noqa: N818
    """The network gave NaN or infinity."""


class DegenerateResult(VizcnnError, RuntimeError):  # noqa: N818
    """The method ran but its answer would mislead: an all-zero map, a random network, outputs that mix images."""


class UnsuitableNetwork(DegenerateResult):
    """The method's answer would mislead for any image: a random network, one that mixes images, one without what the
    method is defined for."""


class WeightsError(VizcnnError, OSError):
    """Weights cannot be read, do not fit the architecture or may not be trusted."""


class OutputError(VizcnnError, OSError):
    """A result cannot be written where it was asked for."""


class ResultError(VizcnnError, OSError):
    """A file holds no saved result, or not a whole one, or one of a newer version."""


class VizcnnWarning(UserWarning):
    """The answer is right but easily misread."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a probe; `result` holds what was computed until then, marked partial."""

    def __init__(self, result: Any) -> None:
        super().__init__("interrupted")
        self.result = result

    def _render_traceback_(self) -> list[str]:
        return render(self)


def describe_address(source: object) -> str:
    """What is wrong with a name that is an address of the web, as one sentence; "" for any other name.

    A `pathlib.Path` has made one slash of two. A single letter before the colon is a drive."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/+(.*)", str(source), re.IGNORECASE | re.DOTALL)
    if not found or os.path.exists(str(source)):
        return ""
    remedy = "Name the file by its path alone" if found[1].lower() == "file" else "Download it first, and name the file"
    return f"{found[1]}://{found[2]} is an address, and only files are read here. {remedy}"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the choice nearest to a mistyped name, or nothing."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
