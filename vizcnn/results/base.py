"""What every result is: numbers with their provenance, that can draw, save and describe themselves."""

from __future__ import annotations

import base64
import html
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError, VizcnnWarning, escape_invisible, to_one_line
from vizcnn.inputs.records import save_options, to_text
from vizcnn.output import refuse_unwritable, write_whole
from vizcnn.process import Turns, ignore_warnings
from vizcnn.results.drawing import lay_out
from vizcnn.results.records import flatten, make_even
from vizcnn.results.storing import FORMAT, RECORD, NotStorableError, Writer, digest_of
from vizcnn.results.style import USUAL, current_style, draw_in, find_style
from vizcnn.results.texts import make_legible, texts_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".jpeg", ".jpg", ".pdf", ".png", ".svg")
FORMATS = (*PICTURES, ".gif", ".html", ".json", ".npz", ".safetensors")

_SUBJECT, _DESCRIPTION = "Subject", "Description"  # where a .pdf and an .svg say what they are
_PACKING = 3  # of .png, up to 9: takes a third of the time of Pillow's own 6, for files that are 7% larger
_DRAWING = Turns()  # matplotlib is not made for several threads at once


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to make it again.

    targets: what was explained for each image, in words for people. target_specs: the same, unambiguous.
    refused: the images that are left out, each with the reason.
    network_sha256: digest of what makes the network beside its weights: its layers, the source code of those that are
        not torch's or torchvision's own, labels and head. Empty in results that were saved before there was one.
    files: options that name a file, each with the digest of its contents.
    plugin: the distribution that the probe comes from, with its version, where that is not vizcnn and is known.
    trust: whether it was asked how far the maps can be believed.
    """

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
    refused: tuple[tuple[str, str], ...] = ()
    network_sha256: str = ""
    files: tuple[tuple[str, str], ...] = ()
    plugin: str = ""
    trust: bool = False

    @property
    def display(self) -> tuple[int, ...] | None:
        """The channels of images that are drawn, three as RGB or one in grey; None for all."""
        chosen = self.input.get("display")
        return None if chosen is None else tuple(chosen)

    def line(self) -> str:
        """The line of small print under a picture. It leaves out measured numbers and flags, which files keep."""
        shown = {key: value for key, value in self.details.items() if not isinstance(value, float | bool)}
        details = " ".join(f"{key}={_format_detail(value)}" for key, value in shown.items())
        return f"vizcnn {self.version}  {self.probe}  {self.model} {self.weights_sha256[:8] or 'black box'}  {details}"


def _format_detail(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ("," if any(isinstance(each, str) for each in value) else "x").join(map(str, value))


@dataclass(frozen=True)
class Result:
    """Base of all results: frozen dataclasses that give `arrays()`, `summary()`, `describe()` and `figure()`.

    `print(result)` writes what was found, and `records()` gives it as rows of a table.

    A kind with one picture, or several of one sort, also has `plot(ax=None, ...)`, which draws one into axes of the
    person's, or into new ones, and returns them. What `plot()` and `figure()` draw needs no care for what texts hold,
    nor for other threads: Result sees to that.

    `load_result` opens a saved result whose fields are plain values, arrays, photographs, `parts`, and tuples, lists
    and mappings of these; of others it opens a `Record`.
    """

    parts: ClassVar[tuple[type, ...]] = ()
    """The dataclasses that fields of this kind of result hold."""
    whole_in_json: ClassVar[bool] = False
    """Whether .json keeps the arrays too: for kinds with few numbers."""

    provenance: Provenance

    partial = False
    """Whether Ctrl-C ended the computation early. A result that can be partial declares it: `partial: bool = False`."""

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """The images that were asked for and are left out: the name of each, and the reason."""
        return self.provenance.refused

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__repr__" not in vars(cls):  # else @dataclass gives each kind one that writes out all arrays
            setattr(cls, "__repr__", cls.__repr__)  # noqa: B010 - the inherited one; mypy knows it as a method
        if "figure" in vars(cls):
            cls.figure = _make_figure_legible(cls.figure)  # type: ignore[method-assign]
        if plot := vars(cls).get("plot"):
            cls.plot = _make_plot_legible(plot)  # type: ignore[attr-defined]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The raw numbers, by name."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """What was found, as plain values for JSON."""
        raise NotImplementedError

    def describe(self) -> str:
        """What was found, in words: a line per finding."""
        raise NotImplementedError

    @property
    def pages(self) -> int:
        """How many pages the picture has. A kind that can have several draws one with `figure(page=1)`."""
        return 1

    def figure(self) -> Figure:
        """The whole picture, or its first page, as a new matplotlib Figure in the style of `vizcnn.use_style`."""
        raise NotImplementedError

    @property
    def small_print(self) -> str:
        """The line below the picture: what it comes from, and whether Ctrl-C cut it short."""
        return self.provenance.line() + "  PARTIAL" * self.partial

    def records(self) -> list[dict[str, Any]]:
        """What was found as a list of plain dicts, a row of a table each: `pandas.DataFrame(result.records())`.

        All records of a result have the same keys; their values are texts, numbers, truth values, and None for what is
        unknown or not finite. Each kind of result says in its docstring what it has a record for.
        """
        return self.records_of(self.summary())

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records that a summary of this kind of result holds, so that a .json without numbers gives them too.

        Here all of it in one record, under names such as `sets.0.median`; a kind that found several things overrides
        this, or, where records need more than the summary, `records`."""
        return make_even([dict(flatten(summary))])

    def __str__(self) -> str:
        """What was found, in words."""
        return escape_invisible(self.describe())

    def __repr__(self) -> str:
        """The kind of result, and what it is about, in one line without any numbers."""
        origin = self.provenance
        counts = {
            "image": len(origin.images),
            "target": max(map(len, origin.target_specs), default=0),
        }
        about = [f"{count:,} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        about += [f"{len(self.refused):,} refused"] * bool(self.refused) + ["partial"] * self.partial
        said = f"{type(self).__name__} of {origin.probe} on {origin.model}"
        return f"<{to_one_line(said)}{': ' * bool(about)}{', '.join(about)}>"

    def manifest(self) -> dict[str, Any]:
        """Provenance and summary as one JSON object."""
        plain: dict[str, Any] = json.loads(json.dumps({"provenance": asdict(self.provenance), **self.summary()}))
        return plain

    def save(self, path: str | Path, *, style: str | None = None) -> Path:
        """Write the result; the ending says how. The file is complete or untouched.

        .png .jpg .pdf .svg .html   the picture, which carries its provenance (.html states it); of several pages, .pdf
                                    and .html hold all, and the others the first, with a warning
        .gif                        how the picture was made, for results that keep frames
        .npz .safetensors           the raw numbers with the manifest; opens again with `vizcnn.load_result`
        .json                       the manifest

        style: how a picture is drawn, see `vizcnn.use_style`; by default as that says.
        Raises OutputError, and ParameterError for another ending or style.
        """
        path = Path(path)
        kind = check_format(path)
        with write_whole(path) as fresh, draw_in(find_style(style) if style else current_style()):
            self._write(fresh, kind)
        return path

    def _write(self, file: Path, kind: str) -> None:
        if kind in PICTURES:
            self._draw_into(file, kind[1:], 150)
            if kind != ".pdf" and self.pages > 1:
                warnings.warn(
                    f"a {kind} picture holds page 1 of {self.pages}. Save as .pdf or .html for all of them",
                    VizcnnWarning,
                    stacklevel=3,
                )
        elif kind == ".gif":
            raise ParameterError(f"a {self.provenance.probe} result is no animation. Save it as .png")
        elif kind == ".html":
            file.write_text(self._page(), encoding="utf-8")
        elif kind == ".json":
            manifest = self.manifest()
            record = self._record(manifest, {}, in_json=True)
            file.write_text(json.dumps(manifest | {RECORD: record}, indent=2) + "\n", encoding="utf-8")
        else:
            manifest, arrays = self.manifest(), {name: _to_native(each) for name, each in self.arrays().items()}
            record = self._record(manifest, arrays, in_json=False)
            _write_arrays(file, kind, arrays, {"manifest": json.dumps(manifest), RECORD: json.dumps(record)})

    def _record(
        self, manifest: Mapping[str, Any], arrays: dict[str, npt.NDArray[Any]], *, in_json: bool
    ) -> dict[str, Any]:
        """The JSON object from which `load_result` makes the result again.

        Arrays of the result that are not among `arrays` yet are added to it. The fields are None where they cannot be
        kept; `load_result` then gives a Record."""
        writer = Writer({**arrays}, self.parts, inline=in_json)
        whole = _is_made_of_its_fields(type(self)) and not (in_json and self.arrays() and not self.whole_in_json)
        try:
            kept = writer.fields(self, but="provenance") if whole else None
        except NotStorableError:
            kept, writer.extra = None, {}
        arrays |= writer.extra
        record = {
            "format": FORMAT,
            "kind": type(self).__name__,
            "provenance": Writer({}, ()).fields(self.provenance),
            "fields": kept,
            "words": self.describe(),
        }
        return record | {"sha256": digest_of(manifest, record, arrays)}

    def _png(self, page: int = 1) -> bytes:
        buffer = io.BytesIO()
        self._draw_into(buffer, "png", 110, page)
        return buffer.getvalue()

    def _origin(self) -> dict[str, Any]:
        """What a picture says of its making: the provenance, the style where it is not the usual one, and, where Ctrl-C
        ended it early, `partial`."""
        style = current_style().name
        return (
            asdict(self.provenance)
            | ({"partial": True} if self.partial else {})
            | ({"style": style} if style != USUAL.name else {})
        )

    def _draw_page(self, page: int) -> Figure:
        return self.figure() if page == 1 else self.figure(page=page)  # type: ignore[call-arg]

    def _draw_into(self, place: Path | io.BytesIO, kind: str, dpi: int, page: int = 1) -> None:
        """Draw a page as a picture, or all pages as a .pdf."""
        record = self._origin()
        if kind == "pdf":
            self._draw_pdf(place, dpi, {_SUBJECT: to_text(record)})
            return
        figure = self._draw_page(page)
        if kind == "svg":
            carried: dict[str, Any] = {"metadata": {_DESCRIPTION: to_text(record)}}
        else:
            carried = {"pil_kwargs": {"compress_level": _PACKING, **save_options(kind, record)}}
        with _take_turn(), ignore_warnings("Glyph"):  # texts.py has said it
            if kind != "svg":
                lay_out(figure, dpi)
            figure.savefig(place, dpi=dpi, format=kind, **carried)

    def _draw_pdf(self, place: Path | io.BytesIO, dpi: int, metadata: dict[str, str]) -> None:
        """Draw all pages, under the style's settings to the end: fonts are written when the file is closed."""
        from matplotlib.backends.backend_pdf import PdfPages

        with _take_turn(), ignore_warnings("Glyph"), PdfPages(place, metadata=metadata) as pdf:
            for page in range(1, self.pages + 1):
                pdf.savefig(self._draw_page(page), dpi=dpi)

    def _page(self) -> str:
        pictures = [base64.b64encode(self._png(page)).decode() for page in range(1, self.pages + 1)]
        title = html.escape(escape_invisible(self.provenance.line()))
        finding = html.escape(escape_invisible(self.describe()))
        record = html.escape(json.dumps(self.manifest(), indent=2))
        shown = "\n".join(
            f'<img alt="{finding}" style="max-width:100%" src="data:image/png;base64,{picture}">'
            for picture in pictures
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
            f"{shown}\n"
            f'<p style="white-space:pre-line">{finding}</p>\n'
            f"<details><summary>Provenance</summary><pre>{record}</pre></details></html>\n"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"image/png": base64.b64encode(self._png()).decode(), "text/plain": str(self)}


def _is_made_of_its_fields(kind: type[Result]) -> bool:
    """Whether a result of this kind can be made from its fields: a class that is no dataclass may hold anything."""
    return "__dataclass_fields__" in vars(kind) and all(field.init for field in fields(kind))


def _to_native(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """An array in this machine's order of bytes, which is all that every format keeps."""
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _write_arrays(file: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]], texts: Mapping[str, str]) -> None:
    if kind == ".npz":
        with file.open("wb") as stream:  # a name would be given the ending .npz once more where it has .NPZ
            np.savez_compressed(stream, **{name: np.array(text) for name, text in texts.items()}, **arrays)  # type: ignore[arg-type]
    else:
        from safetensors.numpy import save_file

        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, file, {**texts})


@contextmanager
def _take_turn() -> Iterator[None]:
    """While the context is open, only this thread draws, with the settings of its style."""
    from matplotlib import rc_context

    with _DRAWING.take(), rc_context(current_style().settings()):
        yield


def _make_figure_legible(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Wrap a `figure()`: threads take turns, and all texts are made drawable."""

    @wraps(draw)
    def figure(result: Result, *args: Any, **which: Any) -> Figure:
        with _take_turn():
            drawn = draw(result, *args, **which)
            make_legible(drawn)
            return drawn

    return figure


def _make_plot_legible(draw: Callable[..., Axes]) -> Callable[..., Axes]:
    """Wrap a `plot()`: threads take turns, and its own texts are made drawable, but none that the person wrote."""

    @wraps(draw)
    def plot(result: Result, ax: Axes | None = None, **which: Any) -> Axes:
        with _take_turn():
            known = {} if ax is None else {text: text.get_text() for text in texts_in(ax.figure)}
            before = [] if ax is None else list(ax.figure.axes)
            drawn = draw(result, ax, **which)
            for each in [drawn, *(new for new in drawn.figure.axes if new not in before and new is not drawn)]:
                make_legible(each, known)
            return drawn

    return plot


def check_format(path: Path) -> str:
    """Return the ending of a file's name, in small letters, where a result can be written to that file.

    Raises ParameterError for an ending that is not in FORMATS, OutputError for a place that cannot be written to."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ParameterError(f"cannot save as {path.name!r}: the ending must be one of {', '.join(FORMATS)}")
    refuse_unwritable(path)
    return kind
