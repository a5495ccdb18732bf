"""The input contract of an image processor of transformers, found by asking it.

There are dozens of processors, and the meaning of their settings (`size`, `crop_pct`, `rescale_offset`) differs from
one to another. What they do to a few images is the same question for all: of values x in [0, 1] a processor makes
(x - mean) / std, so black and white tell mean and std; a red image tells the order of the channels; and a picture of
noise which of the ways to scale and cut is meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vizcnn.errors import ParameterError
from vizcnn.inputs.images import open_photo
from vizcnn.models.contract import InputContract

_SIDE = 64  # px of the images of one colour
_SAME = 0.02  # of the range of pixels; what rounding to 8 bits and another library's resampling differ by, on average
_RESAMPLING: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers

Pixels = npt.NDArray[np.float64]


def find_contract(processor: Any, name: str, usual: tuple[int, int] | None) -> tuple[InputContract, tuple[str, ...]]:
    """The input contract of an image processor for RGB, and lines that say what the processor does otherwise.

    name: of the network, for messages. usual: the input's size where the processor leaves images as large as they are.
    Raises ParameterError where there is no such contract."""
    black, white, red = (_ask(processor, _paint(colour)) for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0)))
    if black.shape[0] != 3:
        raise ParameterError(f"{name}: its image processor makes {black.shape[0]} channels of RGB, and 3 are needed")
    low, high = black.mean((1, 2)), white.mean((1, 2))
    if (abs(red.mean((1, 2)) - low) > 1e-3).tolist() != [True, False, False]:
        raise ParameterError(
            f"{name}: its image processor puts the colours in another order than RGB, which is not done here. Turn "
            "them inside a network of yours: vizcnn.Model(network, size=...)"
        )
    size = black.shape[1], black.shape[2]
    if not getattr(processor, "do_resize", True) and size == (_SIDE, _SIDE):
        if usual is None:
            raise ParameterError(f"{name}: its image processor leaves images as large as they are. Give --input-size")
        size = usual
    std = tuple(round(float(each), 6) for each in 1 / (high - low))  # the processor's own sums have 7 digits
    mean = tuple(round(float(each), 6) for each in -low / (high - low))
    plain = InputContract(size=size, mean=mean, std=std)
    return _choose_geometry(processor, plain, name)


def _choose_geometry(processor: Any, plain: InputContract, name: str) -> tuple[InputContract, tuple[str, ...]]:
    """The contract that treats a picture most nearly as the processor does, and what it does otherwise."""
    picture = _paint_noise(2 * max(plain.size))
    wanted = _ask(processor, picture)  # (3, H, W)
    candidates = [*_list_candidates(processor, plain)]
    if wanted.shape[1:] != plain.size:
        whole = f"{name}: its image processor gives {wanted.shape[2]} x {wanted.shape[1]} px for a photograph of 4:3"
        return candidates[0], (f"{whole}, here its centre of {plain.size[1]} x {plain.size[0]} px is taken",)
    errors = [_measure_difference(each, picture, wanted) for each in candidates]
    best = int(np.argmin(errors))
    differs = (
        f"{name}: its image processor brings photographs to the input's size in another way than this one, "
        f"by {errors[best]:.0%} of the range on average",
    )
    return candidates[best], differs if errors[best] > _SAME else ()


def _list_candidates(processor: Any, plain: InputContract) -> Iterator[InputContract]:
    """The ways to scale and cut that the processor may mean: cover the input, a shorter side that it names, distort."""
    number = int(getattr(processor, "resample", None) or 3)
    plain = replace(plain, interpolation=_RESAMPLING.get(number, "bicubic"))
    yield plain
    size = dict(getattr(processor, "size", None) or {})
    edges = {value for value in size.values() if isinstance(value, int)}
    share = getattr(processor, "crop_pct", None)
    edges |= {int(edge / share) for edge in edges} if share else {int(edge * 256 / 224) for edge in edges}
    for edge in sorted(edge for edge in edges if edge >= max(plain.size)):
        yield replace(plain, resize=edge)
    yield replace(plain, fit="stretch")


def _measure_difference(contract: InputContract, picture: Image.Image, wanted: Pixels) -> float:
    """The mean difference between a picture as the contract and as the processor prepare it, of the range of pixels.

    Libraries round the place of a cut in their own ways, so a px to any side is no difference."""
    ours = contract.prepared(open_photo(picture))[0].double().numpy()  # (3, H, W)
    theirs = wanted * np.reshape(contract.std, (3, 1, 1)) + np.reshape(contract.mean, (3, 1, 1))
    inner, (h, w) = theirs[:, 1:-1, 1:-1], contract.size
    shifted = (ours[:, y : h - 2 + y, x : w - 2 + x] for y in range(3) for x in range(3))
    return min(float(abs(each - inner).mean()) for each in shifted)


def _ask(processor: Any, image: Image.Image) -> Pixels:
    """What a processor makes of an image, (C, H, W)."""
    made = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return torch.as_tensor(made).double().numpy()


def _paint(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (_SIDE, _SIDE), colour)


def _paint_noise(height: int) -> Image.Image:
    """A picture of 4:3 with blurs of every size, so that each way to scale it gives something else."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((height * 4 // 3, height), Image.Resampling.BICUBIC)
