"""The windows of an occlusion: where they lie, what covers them, and how drops under windows become a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import ParameterError
from vizcnn.inputs.blur import gaussian_blur
from vizcnn.inputs.images import parse_colour
from vizcnn.models.scoring import Indices

FILLS = ("mean", "model", "blur")
"""What may cover a window, beside any colour."""

Windows = npt.NDArray[np.int64]
"""(n, 4): top, bottom, left, right in input px, top and left inclusive, bottom and right exclusive."""


def place_windows(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> Windows:
    """Windows every `stride` px, row by row, that cover every pixel of an image of height and width `size`.

    The last of each row and column are clipped to the image. Raises ParameterError for a window larger than the image
    or a stride larger than the window."""
    check_sides(window, stride)
    for axis, side, length in zip(("high", "wide"), window, size, strict=True):
        if side > length:
            raise ParameterError(f"the window is {side} px {axis}, the input only {length}. Choose a smaller window")
    tops, lefts = (
        np.arange(0, -(-(length - side) // step) * step + 1, step)
        for length, side, step in zip(size, window, stride, strict=True)
    )
    top, left = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([top, np.minimum(top + window[0], size[0]), left, np.minimum(left + window[1], size[1])], 1)


def pick_windows(windows: Windows, shares: Sequence[tuple[float, float]]) -> Indices:
    """The indices, in order and each once, of the windows that lie so far down and across the grid.

    shares: (down, across), from (0, 0), the upper left window, to (1, 1), the lower right one."""
    tops, lefts = np.unique(windows[:, 0]), np.unique(windows[:, 2])
    cells = [(round(down * (len(tops) - 1)), round(across * (len(lefts) - 1))) for down, across in shares]
    return np.unique([row * len(lefts) + column for row, column in cells])


def check_sides(window: tuple[int, int], stride: tuple[int, int]) -> None:
    """Raise ParameterError where windows would leave pixels between them."""
    for side, step in zip(window, stride, strict=True):
        if step > side:
            raise ParameterError(f"stride {step} is larger than the window's {side} px, so pixels would stay uncovered")


def average_over_windows(
    windows: Windows, drops: npt.NDArray[np.float64], size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """For each pixel the mean drop of the windows that cover it: (n, T) drops to maps (T, H, W), NaN under no window.

    A drop is added at two corners of its window and subtracted at the other two; cumulative sums down and across then
    spread it over the whole window (the reverse of a summed-area table). So the cost does not depend on the window's
    size.
    """
    weighted = np.concatenate([drops, np.ones((len(drops), 1))], 1)  # (n, T + 1)
    width = size[1] + 1
    corners = np.zeros(((size[0] + 1) * width, weighted.shape[1]))
    top, bottom, left, right = windows.T
    for rows, columns, sign in ((top, left, 1), (bottom, left, -1), (top, right, -1), (bottom, right, 1)):
        np.add.at(corners, rows * width + columns, sign * weighted)
    sums = corners.reshape(-1, width, weighted.shape[1]).cumsum(0).cumsum(1)[:-1, :-1]  # (H, W, T + 1)
    count = np.rint(sums[:, :, -1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, sums[:, :, :-1] / count, np.nan)
    return mean.transpose(2, 0, 1).astype(np.float32)  # (T, H, W)


def check_fill(option: str, fill: str) -> None:
    """Raise ParameterError unless `make_baseline` knows the fill."""
    if fill in FILLS:
        return
    try:
        parse_colour(fill)
    except ValueError as error:
        raise ParameterError(
            f"{option} must be {', '.join(FILLS)} or a colour such as 'grey' or '#7f7f7f', got {fill!r}"
        ) from error


def make_baseline(fill: str, images: Tensor, model_mean: tuple[float, ...], window: tuple[int, int]) -> Tensor:
    """What shows where images (..., C, H, W) are covered: other images (..., C, H, W).

    fill: `mean` (each image's mean colour), `model` (the mean the model subtracts), `blur` (the image blurred by a
    Gaussian whose sigma is half the window), or a colour as Pillow names it.
    """
    if fill == "blur":
        sigma = max(window) / 2
        return gaussian_blur(images.view(-1, *images.shape[-3:]), sigma, int(np.ceil(3 * sigma))).view_as(images)
    if fill == "mean":
        colour = images.mean((-2, -1))  # (..., C)
    elif fill == "model":
        colour = images.new_tensor(model_mean)  # (C,)
    else:
        rgb = parse_colour(fill)
        grey = float(np.dot(rgb, (0.299, 0.587, 0.114)))
        colour = images.new_tensor(rgb if images.shape[-3] == 3 else [grey])  # (C,)
    return colour[..., None, None].expand_as(images)


def occlude(image: Tensor, baseline: Tensor, windows: Windows) -> Tensor:
    """A copy of the image (C, H, W) for each of B windows, which shows the baseline (C, H, W) there: (B, C, H, W)."""
    batch = image.repeat(len(windows), 1, 1, 1)
    for copy, (top, bottom, left, right) in zip(batch, windows.tolist(), strict=True):
        copy[:, top:bottom, left:right] = baseline[:, top:bottom, left:right]
    return batch


def parse_sides(text: str) -> int | tuple[int, int]:
    """Read `32` or `32x16` (height x width) as a window or stride. Raises ValueError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError("a side in px such as 32, or HEIGHTxWIDTH such as 32x16")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
