"""What every result is: numbers with their provenance, that can draw, save and describe themselves."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError, legible
from vizcnn.inputs.records import as_text, save_options
from vizcnn.output import atomic, refuse_unwritable
from vizcnn.process import Turns, no_warnings
from vizcnn.results.texts import make_legible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".jpeg", ".jpg", ".pdf", ".png", ".svg")
FORMATS = (*PICTURES, ".gif", ".html", ".json", ".npz", ".safetensors")

_DESCRIBED = {"pdf": "Subject", "svg": "Description"}  # where a picture that is no raster says what it is
_DRAWING = Turns()  # matplotlib is not made for several threads at once


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from; enough to make it again. `targets` are for people, `target_specs` unambiguous."""

    version: str
    torch: str
    probe: str
    options: Mapping[str, Any]
    details: Mapping[str, Any]
    model: str
    weights_sha256: str
    input: Mapping[str, Any]
    device: str
    images: tuple[tuple[str, str], ...]
    targets: tuple[tuple[str, ...], ...]
    target_specs: tuple[tuple[str, ...], ...]
    seed: int
    paper: str

    def line(self) -> str:
        """The one line under a picture. For want of room, measured numbers and flags are in the file only."""
        shown = {key: value for key, value in self.details.items() if not isinstance(value, float | bool)}
        details = " ".join(f"{key}={_short(value)}" for key, value in shown.items())
        return f"vizcnn {self.version}  {self.probe}  {self.model} {self.weights_sha256[:8]}  {details}"


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ("," if any(isinstance(each, str) for each in value) else "x").join(map(str, value))


@dataclass(frozen=True)
class Result:
    """Base of all results. Subclasses give `arrays()`, `summary()`, `describe()` and `figure()`.

    What `figure()` draws needs no care for what texts hold, nor for other threads: Result sees to that.
    """

    provenance: Provenance

    partial = False
    """Whether Ctrl-C ended the computation early. A result that can be partial declares it: `partial: bool = False`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "figure" in vars(cls):
            cls.figure = _legibly(cls.figure)  # type: ignore[method-assign, assignment]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The raw numbers, by name."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """What was found, as plain values for JSON."""
        raise NotImplementedError

    def describe(self) -> str:
        """What was found, in words: a line per finding."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The whole picture, as a new matplotlib Figure."""
        raise NotImplementedError

    def manifest(self) -> dict[str, Any]:
        """Provenance and summary as one JSON object."""
        plain: dict[str, Any] = json.loads(json.dumps({"provenance": asdict(self.provenance), **self.summary()}))
        return plain

    def save(self, path: str | Path) -> Path:
        """Write the result; the ending says how. The file is complete or untouched.

        .png .jpg .pdf .svg .html   the picture, which carries its provenance (the page states it)
        .gif                        how the picture was made, for results that keep frames
        .npz .safetensors           the raw numbers with the manifest
        .json                       the manifest

        Raises OutputError, and ParameterError for another ending.
        """
        path = Path(path)
        kind = checked_format(path)
        with atomic(path) as fresh:
            self._write(fresh, kind)
        return path

    def _write(self, file: Path, kind: str) -> None:
        if kind in PICTURES:
            self._draw_into(file, kind[1:], 150)
        elif kind == ".gif":
            raise ParameterError(f"a {self.provenance.probe} result is no animation. Save it as .png")
        elif kind == ".html":
            file.write_text(self._page(), encoding="utf-8")
        elif kind == ".json":
            file.write_text(json.dumps(self.manifest(), indent=2) + "\n", encoding="utf-8")
        elif kind == ".npz":
            with file.open("wb") as stream:  # a name would be given the ending .npz once more where it has .NPZ
                np.savez_compressed(stream, manifest=np.array(json.dumps(self.manifest())), **self.arrays())  # type: ignore[arg-type]
        else:
            from safetensors.numpy import save_file

            contiguous = {name: np.ascontiguousarray(a) for name, a in self.arrays().items()}
            save_file(contiguous, file, {"manifest": json.dumps(self.manifest())})

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        self._draw_into(buffer, "png", 110)
        return buffer.getvalue()

    def _draw_into(self, place: Path | io.BytesIO, kind: str, dpi: int) -> None:
        figure = self.figure()
        record = asdict(self.provenance)
        if kind in _DESCRIBED:
            carried: dict[str, Any] = {"metadata": {_DESCRIBED[kind]: as_text(record)}}
        else:
            carried = {"pil_kwargs": save_options(kind, record)}
        with _DRAWING.taken(), no_warnings("Glyph"):  # texts.py has said it
            figure.savefig(place, dpi=dpi, format=kind, **carried)

    def _page(self) -> str:
        picture = base64.b64encode(self._png()).decode()
        title = html.escape(legible(self.provenance.line()))
        finding, record = html.escape(legible(self.describe())), html.escape(json.dumps(self.manifest(), indent=2))
        return (
            f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
            f'<img alt="{finding}" style="max-width:100%" src="data:image/png;base64,{picture}">\n'
            f'<p style="white-space:pre-line">{finding}</p>\n'
            f"<details><summary>Provenance</summary><pre>{record}</pre></details></html>\n"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"image/png": base64.b64encode(self._png()).decode(), "text/plain": legible(self.describe())}


R = TypeVar("R", bound=Result)


def _legibly(draw: Callable[[R], Figure]) -> Callable[[R], Figure]:
    """A `figure()` whose texts can be drawn, and one at a time."""

    @wraps(draw)
    def figure(result: R) -> Figure:
        with _DRAWING.taken():
            drawn = draw(result)
            make_legible(drawn)
            return drawn

    return figure


def checked_format(path: Path) -> str:
    """The ending of a file that results can be written to. Raises ParameterError and OutputError."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ParameterError(f"cannot save as {path.name!r}: the ending must be one of {', '.join(FORMATS)}")
    refuse_unwritable(path)
    return kind
