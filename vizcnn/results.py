"""Results: numbers with their provenance, that can draw, save and describe themselves."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError
from vizcnn.images import Photo, grey
from vizcnn.model import Box
from vizcnn.output import atomic, refuse_unwritable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

PICTURES = (".jpeg", ".jpg", ".pdf", ".png", ".svg")
_PANEL = 3.6  # width of one panel in inches
FORMATS = (*PICTURES, ".html", ".json", ".npz", ".safetensors")


@dataclass(frozen=True)
class Prediction:
    """A class that the network names for an image, with its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from; enough to make it again."""

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
    seed: int
    paper: str

    def line(self) -> str:
        """The one line under a picture."""
        details = " ".join(f"{key}={_short(value)}" for key, value in self.details.items())
        return f"vizcnn {self.version}  {self.probe}  {self.model} {self.weights_sha256[:8]}  {details}"


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Result:
    """Base of all results. Subclasses give `arrays()`, `summary()`, `describe()` and `figure()`."""

    provenance: Provenance

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

        .png .jpg .pdf .svg .html   the picture (the page also states the provenance)
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
            self.figure().savefig(file, dpi=150)
        elif kind == ".html":
            file.write_text(self._page(), encoding="utf-8")
        elif kind == ".json":
            file.write_text(json.dumps(self.manifest(), indent=2) + "\n", encoding="utf-8")
        elif kind == ".npz":
            np.savez_compressed(file, manifest=np.array(json.dumps(self.manifest())), **self.arrays())  # type: ignore[arg-type]
        else:
            from safetensors.numpy import save_file

            contiguous = {name: np.ascontiguousarray(a) for name, a in self.arrays().items()}
            save_file(contiguous, file, {"manifest": json.dumps(self.manifest())})

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, dpi=110, format="png")
        return buffer.getvalue()

    def _page(self) -> str:
        picture = base64.b64encode(self._png()).decode()
        title = html.escape(self.provenance.line())
        finding, record = html.escape(self.describe()), html.escape(json.dumps(self.manifest(), indent=2))
        return (
            f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
            f'<img alt="{finding}" style="max-width:100%" src="data:image/png;base64,{picture}">\n'
            f'<p style="white-space:pre-line">{finding}</p>\n'
            f"<details><summary>Provenance</summary><pre>{record}</pre></details></html>\n"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"image/png": base64.b64encode(self._png()).decode(), "text/plain": self.describe()}


def checked_format(path: Path) -> str:
    """The ending of a file that results can be written to. Raises ParameterError and OutputError."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ParameterError(f"cannot save as {path.name!r}: the ending must be one of {', '.join(FORMATS)}")
    refuse_unwritable(path)
    return kind


@dataclass(frozen=True)
class Mark:
    """A box worth pointing at, in px of the photograph."""

    box: Box
    text: str


@dataclass(frozen=True)
class Heatmap(Result):
    """One map for each of N images and T targets.

    values: float32 (N, T, H, W), in input px, signed; NaN where nothing was computed (only when partial).
    scores: float32 (N, T), each target's number for the clean image.
    meaning: what one unit of the colour bar is, e.g. `logit lost when covered`.
    photos, seen: the images, and the box of each that the network saw.
    marks: per image and target, the box to point at, or None.
    findings: per image and target, one sentence.
    partial: the computation was interrupted.
    """

    values: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    meaning: str
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    predictions: tuple[tuple[Prediction, ...], ...]
    marks: tuple[tuple[Mark | None, ...], ...]
    findings: tuple[tuple[str, ...], ...]
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`values` (N, T, H, W) and `scores` (N, T)."""
        return {"values": self.values, "scores": self.scores}

    def summary(self) -> dict[str, Any]:
        images = [self._image_summary(i) for i in range(len(self.photos))]
        return {"meaning": self.meaning, "partial": self.partial, "images": images}

    def _image_summary(self, i: int) -> dict[str, Any]:
        maps = [
            {
                "target": self.provenance.targets[i][t],
                "score": float(self.scores[i, t]),
                "highest": float(np.nanmax(self.values[i, t])),
                "lowest": float(np.nanmin(self.values[i, t])),
                "finding": self.findings[i][t],
                "box": asdict(mark.box) if (mark := self.marks[i][t]) else None,
            }
            for t in range(self.values.shape[1])
        ]
        return {"name": self.photos[i].name, "predictions": [asdict(p) for p in self.predictions[i]], "maps": maps}

    def describe(self) -> str:
        lines = [
            f"{photo.name}: {finding}"
            for photo, findings in zip(self.photos, self.findings, strict=True)
            for finding in findings
        ]
        return "\n".join(lines + ["Interrupted: the map is partial."] * self.partial)

    def scale(self, image: int) -> float:
        """The colour scale's end for all maps of one image: the largest magnitude among them."""
        return float(np.nanmax(np.abs(self.values[image]))) or 1.0

    def plot(self, ax: Axes | None = None, *, image: int = 0, target: int = 0) -> Axes:
        """Draw one map over its photograph, on `ax` or on a new figure. Returns the Axes.

        Colours are centred on zero and share their scale with the other maps of the same image. Weak values are
        transparent, so that the photograph shows; the colour bar is the legend of full colours.
        """
        ax = _figure(5.6, 4.8).add_subplot() if ax is None else ax
        bar = ax.figure.colorbar(self._draw(ax, image, target), ax=ax, fraction=0.046, pad=0.03)
        bar.set_label(self.meaning)
        return ax

    def figure(self) -> Figure:
        """A row per image: the photograph with what the network says of it, a map per target, their colour bar."""
        n, t = self.values.shape[:2]
        tallest = min(max(photo.size[0] / photo.size[1] for photo in self.photos), 1.6)
        figure = _figure(_PANEL * (t + 1) + 0.9, n * (_PANEL * tallest + 0.85) + 0.2)
        axes = figure.subplots(n, t + 2, squeeze=False, width_ratios=[1] * (t + 1) + [0.05])
        for i in range(n):
            self._draw_photo(axes[i, 0], i)
            colours = [self._draw(axes[i, 1 + j], i, j) for j in range(t)]
            figure.colorbar(colours[0], cax=axes[i, -1]).set_label(self.meaning)
        figure.supxlabel(self.provenance.line() + ("  PARTIAL" if self.partial else ""), fontsize=6, color="0.4")
        return figure

    def _draw_photo(self, ax: Axes, i: int) -> None:
        photo, box = self.photos[i], self.seen[i]
        ax.imshow(_shown(photo), cmap="gray", vmin=0, vmax=1)
        _dim_unseen(ax, photo, box)
        said = "\n".join(f"{p.probability:6.1%}  {p.label}" for p in self.predictions[i][:3])
        ax.set_title(photo.name, fontsize=9)
        ax.set_xlabel(said, fontsize=8, loc="left", family="monospace")
        _no_ticks(ax)

    def _draw(self, ax: Axes, i: int, t: int) -> ScalarMappable:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        photo, box, values, end = self.photos[i], self.seen[i], self.values[i, t], self.scale(i)
        ax.imshow(0.35 + 0.65 * grey(photo.pixels)[:, :, 0], cmap="gray", vmin=0, vmax=1)
        extent = (box.left - 0.5, box.right - 0.5, box.bottom - 0.5, box.top - 0.5)
        opacity = np.nan_to_num(np.clip(np.abs(values) / end, 0, 1) ** 0.5 * 0.85)
        norm = Normalize(-end, end)
        ax.imshow(values, cmap="RdBu_r", norm=norm, alpha=opacity, extent=extent, interpolation="nearest")
        _dim_unseen(ax, photo, box)
        if mark := self.marks[i][t]:
            _outline(ax, mark)
        ax.set_title(f"{self.provenance.targets[i][t]}  {self.scores[i, t]:.2f}", fontsize=9)
        _no_ticks(ax)
        return ScalarMappable(norm, "RdBu_r")


def _figure(width: float, height: float) -> Figure:
    """A figure that pyplot knows nothing of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _shown(photo: Photo) -> npt.NDArray[np.float32]:
    return photo.pixels[:, :, 0] if photo.pixels.shape[2] == 1 else photo.pixels


def _no_ticks(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def _dim_unseen(ax: Axes, photo: Photo, box: Box) -> None:
    """Whiten the parts of a photograph that the crop keeps from the network."""
    from matplotlib.patches import Rectangle

    height, width = photo.size
    for top, left, bottom, right in (
        (0, 0, box.top, width),
        (box.bottom, 0, height, width),
        (box.top, 0, box.bottom, box.left),
        (box.top, box.right, box.bottom, width),
    ):
        if bottom > top and right > left:
            ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, color="white", alpha=0.7, lw=0))
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)


def _outline(ax: Axes, mark: Mark) -> None:
    from matplotlib.patches import Rectangle

    box = mark.box
    corner, size = (box.left - 0.5, box.top - 0.5), (box.right - box.left, box.bottom - box.top)
    ax.add_patch(Rectangle(corner, *size, fill=False, lw=3, color="white"))
    ax.add_patch(Rectangle(corner, *size, fill=False, lw=1.5, color="black"))
    ax.set_xlabel(mark.text, fontsize=8, loc="left")
