"""Makes the drawings of the site's pages, each on a light and on a dark ground, from the networks themselves.

python docs/extensions/drawings.py build/drawings
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import sequence
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

import vizcnn
from vizcnn.results import STYLES

mpl.use("agg")
ROOT = Path(__file__).parents[2]
GROUNDS = {"light": "screen", "dark": "dark"}
SIDE = 192  # px of the image in drawings of `tiny`, which takes any size: its own 64 px leave deep units no room
WINDOW = (74, 60, 98, 84)  # top, left, bottom, right in px
LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")
RED, BLUE, GOLD = "#d1495b", "#3c7dc4", "#d99a2b"


def draw_all(folder: Path) -> None:
    """Write each drawing as NAME-light.svg and NAME-dark.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DRAWINGS:
        for ground in GROUNDS:
            (folder / f"{name}-{ground}.svg").write_bytes(draw_one(name, ground, "svg"))


def draw_one(name: str, ground: str = "light", kind: str = "png") -> bytes:
    """One drawing as a file."""
    style = STYLES[GROUNDS[ground]]
    drawn = io.BytesIO()
    with mpl.rc_context({**style.settings(), "svg.hashsalt": "vizcnn", "font.size": 9}):
        metadata = {"Date": None} if kind == "svg" else None
        DRAWINGS[name](style).savefig(drawn, format=kind, metadata=metadata, bbox_inches="tight", dpi=150)
    return drawn.getvalue()


def draw_incremental(style: Any) -> Figure:
    """What covering one window changes in each layer of `tiny`, and the region that it can change."""
    model, image = vizcnn.load("tiny"), _read_street()
    covered = image.clone()
    top, left, bottom, right = WINDOW
    covered[..., top:bottom, left:right] = 0.5
    clean, altered = _run(model, image), _run(model, covered)
    fields = vizcnn.receptive_fields(model, (SIDE, SIDE), layers=LAYERS)
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    axes = figure.subplots(1, 1 + len(LAYERS))
    axes[0].imshow(covered[0].permute(1, 2, 0).numpy())
    axes[0].set_title("one window covered", fontsize=9)
    for ax, layer in zip(axes[1:], LAYERS, strict=True):
        change = (altered[layer] - clean[layer]).abs().amax(1)[0].numpy()  # (h, w)
        field = fields[layer]
        rows = np.flatnonzero((field.top < bottom) & (field.bottom > top))
        columns = np.flatnonzero((field.left < right) & (field.right > left))
        ax.imshow(change, cmap="magma" if style.name == "dark" else "magma_r")
        box = (columns[0] - 0.5, rows[0] - 0.5)
        ax.add_patch(Rectangle(box, len(columns), len(rows), fill=False, edgecolor=BLUE, linewidth=2))
        share = len(rows) * len(columns) / change.size
        ax.set_title(f"{layer}: {share:.0%}", fontsize=9)
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def _read_street() -> torch.Tensor:
    pixels = torch.from_numpy(vizcnn.open_photo(ROOT / "assets" / "street.png").pixels)  # (H, W, 3)
    side = min(pixels.shape[:2])
    left = (pixels.shape[1] - side) // 2
    square = pixels[:side, left : left + side].permute(2, 0, 1)[None]  # (1, 3, side, side)
    return torch.nn.functional.interpolate(square, SIDE, mode="area")


def _run(model: vizcnn.Model, image: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """The activations of LAYERS, (1, C, h, w) each."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: kept.__setitem__(name, output.clone())

    handles = [model.layer(name).register_forward_hook(keep(name)) for name in LAYERS]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    return kept


def draw_field(style: Any) -> Figure:
    """Three layers in one dimension: what one unit of the last reads, from layer to layer."""
    figure = Figure(figsize=(7.5, 2.9), layout="constrained")
    ax = figure.subplots()
    ax.axis("off")
    layers = [  # name, units of the output, kernel, stride, padding
        ("conv, kernel 3, padding 1", 8, 3, 1, 1),
        ("pool, kernel 2, stride 2", 8, 2, 2, 0),
        ("conv, kernel 3, padding 1", 16, 3, 1, 1),
    ]
    height, (low, high) = 3.0, (3, 3)
    unit = 1 / 16
    for depth, (name, count, kernel, stride, padding) in enumerate(layers):
        step = 1 / count
        _draw_units(ax, count, height - depth, (low, high), style)
        size = f"{high - low + 1} unit" + ("s" if high > low else "")
        ax.text(1.02, height - depth, f"{name}\n{size}: {low} to {high}", va="center", fontsize=8)
        below_low, below_high = low * stride - padding, high * stride - padding + kernel - 1
        below = layers[depth + 1][1] if depth + 1 < len(layers) else 16
        for at, to in ((low * step, below_low / below), ((high + 1) * step, (below_high + 1) / below)):
            ax.plot([at, to], [height - depth - 0.16, height - depth - 0.84], color=RED, linewidth=1.2)
        low, high = below_low, below_high
    _draw_units(ax, 16, 0, (low, high), style)
    ax.text(1.02, 0, f"the image\n{high - low + 1} px: {low} to {high}", va="center", fontsize=8)
    ax.set_xlim(-unit, 1.5)
    ax.set_ylim(-0.4, 3.4)
    return figure


def _draw_units(ax: Any, count: int, y: float, marked: tuple[int, int], style: Any) -> None:
    for i in range(count):
        inside = marked[0] <= i <= marked[1]
        colour = RED if inside else style.faint
        ax.add_patch(Rectangle((i / count + 0.004, y - 0.15), 1 / count - 0.008, 0.3, facecolor=colour))


def draw_fields(_style: Any) -> Figure:
    """The receptive fields of units in the middle of each of LAYERS, on the input."""
    fields = vizcnn.receptive_fields(vizcnn.load("tiny"), (SIDE, SIDE), layers=LAYERS)
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    pixels = _read_street()[0].permute(1, 2, 0).numpy()
    for ax, (layer, field) in zip(figure.subplots(1, len(LAYERS)), fields.items(), strict=True):
        box = field.box(field.units[0] // 2, field.units[1] // 2)
        ax.imshow(pixels)
        ax.add_patch(
            Rectangle((box.left - 0.5, box.top - 0.5), box.right - box.left, box.bottom - box.top,
                      fill=False, edgecolor=GOLD, linewidth=2)
        )  # fmt: skip
        ax.set_title(f"{layer}: {field.size[0]} px", fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def draw_mean(style: Any) -> Figure:
    """Windows along one row, what each costs, and the mean at each pixel."""
    width, window, stride = 24, 6, 3
    starts = np.arange(0, width - window + 1, stride)
    drops = np.array([0.2, 0.4, 1.6, 2.4, 0.9, 0.1, -0.5])[: len(starts)]
    total, count = np.zeros(width), np.zeros(width)
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.4, 1))
    for i, (start, drop) in enumerate(zip(starts, drops, strict=True)):
        total[start : start + window] += drop
        count[start : start + window] += 1
        colour = RED if drop > 0 else BLUE
        above.add_patch(Rectangle((float(start), i), window, 0.75, facecolor=colour, alpha=0.25 + abs(drop) / 4))
        above.text(start + window / 2, i + 0.35, f"{drop:+.1f}", ha="center", va="center", fontsize=8)
    above.set_ylim(len(starts), -0.3)
    above.axis("off")
    above.set_title("windows, and what covering each costs", loc="left", fontsize=9)
    mean = total / count
    below.bar(np.arange(width) + 0.5, mean, width=0.9, color=np.where(mean > 0, RED, BLUE))
    below.axhline(0, color=style.muted, linewidth=0.6)
    below.set_title("the map: at each pixel the mean over the windows that cover it", loc="left", fontsize=9)
    below.set_xlim(0, width)
    below.set_xticks([])
    for side in ("top", "right", "bottom"):
        below.spines[side].set_visible(False)
    return figure


def draw_scan(style: Any) -> Figure:
    """What becomes of a data set in a scan."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    ax = figure.subplots()
    ax.axis("off")
    boxes = [
        (0.0, "images\nread ahead, by\nother processes"),
        (2.2, "one forward pass\nof each batch;\nno gradient"),
        (4.4, "per channel:\nthe k best so far,\nsums, squares, bins"),
        (6.6, "a shard:\nwritten whole,\nwith its digest"),
        (8.8, "the index:\nall shards merged\nwhen asked"),
    ]
    for left, text in boxes:
        ax.add_patch(
            FancyBboxPatch((left, 0.8), 1.7, 1.1, boxstyle="round,pad=0.06", facecolor="none", edgecolor=style.muted)
        )
        ax.text(left + 0.85, 1.35, text, ha="center", va="center", fontsize=8.5)
    for (left, _), (right, _) in pairwise(boxes):
        ax.annotate("", (right - 0.1, 1.35), (left + 1.8, 1.35), arrowprops={"arrowstyle": "->", "color": style.ink})
    arrow = {"arrowstyle": "->", "color": RED, "connectionstyle": "arc3,rad=-0.35"}
    ax.annotate("", (0.85, 0.7), (7.45, 0.7), arrowprops=arrow)
    ax.text(4.1, -0.78, "stopped? the same call goes on with the shards that are not there", ha="center", fontsize=8.5)
    ax.set_xlim(-0.2, 10.7)
    ax.set_ylim(-1.0, 2.1)
    return figure


def draw_call(style: Any) -> Figure:
    """The sequence that docs/architecture.md describes."""
    return sequence.draw(sequence.read((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")), style)


DRAWINGS: Mapping[str, Callable[[Any], Figure]] = {
    "incremental": draw_incremental,
    "field": draw_field,
    "fields": draw_fields,
    "mean": draw_mean,
    "scan": draw_scan,
    "call": draw_call,
}

if __name__ == "__main__":
    draw_all(Path(sys.argv[1]))
