"""What the pictures of several results share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """A figure that pyplot knows nothing of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_image(ax: Axes, pixels: npt.NDArray[np.float32], **place: Any) -> None:
    """Draw pixels (H, W, 3) or (H, W, 1) in [0, 1] as they are; `place` is what `imshow` knows, such as `extent`."""
    remove_ticks(ax)
    ax.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1, **place)


def shorten(text: str, most: int = 42) -> str:
    """A name that fits over a panel: the middle of a long one is left out."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 + 1 :]}"


def remove_ticks(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def dim_unseen(ax: Axes, size: tuple[int, int], box: Box) -> None:
    """Whiten the parts of a photograph of this height and width that the crop keeps from the network."""
    from matplotlib.patches import Rectangle

    height, width = size
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


def draw_outline(ax: Axes, box: Box) -> None:
    from matplotlib.patches import Rectangle

    corner, size = (box.left - 0.5, box.top - 0.5), (box.right - box.left, box.bottom - box.top)
    ax.add_patch(Rectangle(corner, *size, fill=False, lw=3, color="white"))
    ax.add_patch(Rectangle(corner, *size, fill=False, lw=1.5, color="black"))
