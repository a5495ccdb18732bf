"""Model: the network under study and everything needed to use it rightly."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import chain
from operator import index
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vizcnn.errors import (
    ImageError,
    LayerNotFound,
    ParameterError,
    ShapeError,
    TargetError,
    VizcnnError,
    did_you_mean,
)
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.resampling import resample
from vizcnn.models.failing import is_out_of_memory, to_network_error
from vizcnn.models.head import Head, check_head
from vizcnn.models.making import digest_making
from vizcnn.models.restoring import borrow_network

_PIECE = 2**24  # bytes digested at a time
_LARGEST_SCALED = 25_000_000  # px; only images hundreds of times longer than wide come near


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """How a photograph becomes an input of the network.

    size: height and width of the input in px.
    channels: 3 for RGB, 1 for grey.
    mean, std: per channel, for values in [0, 1]; applied inside the model's forward.
    fit: `crop` scales the photograph and cuts its centre; `stretch` shows all of it, distorted to `size`.
    resize: with `crop`, the shorter side in px before the cut; None scales so that the input is just covered.
    antialias: smooth before making smaller, as Pillow does; False for networks trained on images made without.
    """

    size: tuple[int, int]
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    fit: Literal["crop", "stretch"] = "crop"
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.channels not in (1, 3) or self.fit not in ("crop", "stretch"):
            raise ParameterError(
                f"an input has a positive size, 1 or 3 channels and a fit of crop or stretch, got {self}"
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise ParameterError(f"mean and std need {self.channels} values, got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ParameterError(f"std must be positive, got {self.std}")
        if self.resize is not None and self.resize < max(self.size):
            raise ParameterError(
                f"resize must be at least the input's longer side {max(self.size)} px, got {self.resize}"
            )

    def scaled_size(self, photo: tuple[int, int]) -> tuple[int, int]:
        """Height and width to which a photograph of height and width `photo` is resampled before it is cropped."""
        if self.fit == "stretch":
            return self.size
        (h, w), (height, width) = photo, self.size
        if self.resize is not None:  # as torchvision rounds
            short, long = min(h, w), max(h, w)
            other = int(self.resize * long / short)
            return (self.resize, other) if h <= w else (other, self.resize)
        scale = max(height / h, width / w)
        return max(height, round(h * scale)), max(width, round(w * scale))

    def prepared(self, photo: Photo) -> tuple[Tensor, Box]:
        """A photograph as input, float32 (C, H, W) in [0, 1], and the box of the photograph that this input shows.

        Raises ImageError."""
        scaled = self.scaled_size(photo.size)
        if scaled[0] * scaled[1] > _LARGEST_SCALED:
            raise ImageError(
                f"{photo.name} is {photo.size[1]} x {photo.size[0]} px: scaled to the input's size, before the cut, it "
                f"would have {scaled[1]} x {scaled[0]}. Cut out the part to look at first"
            )
        pixels = resample(
            photo, scaled, channels=self.channels, mode=self.interpolation, antialias=self.antialias
        )  # (1, C, h, w)
        (top, left), (height, width) = self._corner(scaled), self.size
        cut = pixels[0, :, top : top + height, left : left + width]  # (C, H, W)
        # a copy, since a view keeps the memory of what was cut off
        return cut.clone(memory_format=torch.contiguous_format), self.seen(photo.size)

    def seen(self, photo: tuple[int, int]) -> Box:
        """The box of a photograph of height and width `photo` that the network sees, in px of the photograph."""
        scaled = self.scaled_size(photo)
        (top, left), (height, width) = self._corner(scaled), self.size
        return Box(top, left, top + height, left + width).map_onto(scaled, Box(0, 0, *photo))

    def _corner(self, scaled: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the crop in a photograph that was resampled to this size."""
        return round((scaled[0] - self.size[0]) / 2), round((scaled[1] - self.size[1]) / 2)


class Model:
    """A network with its input contract and the names of its classes.

    Calling it with a tensor (N, C, H, W) in [0, 1] normalises and runs the network, so gradients arrive at real pixels.

    network: any nn.Module that takes (N, C, H, W). It stays where it is and is never changed.
    size: side of the input in px, or (height, width).
    labels: one name per class, in the order of the output.
    head: what the outputs are, see `vizcnn.models.head`: `logits`, `softmax`, `log-softmax`, `sigmoid`,
        `sigmoid-logits` or `scores`. By default it is found out from how the network makes them; logits are then taken
        for those of classes of which one is right, since logits of many labels look the same.
    The other arguments are those of InputContract.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: int | tuple[int, int],
        channels: Literal[1, 3] = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        fit: Literal["crop", "stretch"] = "crop",
        resize: int | None = None,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        antialias: bool = True,
        labels: Sequence[str] | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        _refuse_what_cannot_be_probed(network)
        self.network = network
        self.name = name or type(network).__name__
        self.labels = tuple(map(str, labels)) if labels is not None else None
        self.head = check_head(head)
        self.input = InputContract(
            size=_parse_size(size),
            channels=channels,
            mean=_parse_per_channel("mean", mean, 0.0, channels),
            std=_parse_per_channel("std", std, 1.0, channels),
            fit=fit,
            resize=resize,
            interpolation=interpolation,
            antialias=antialias,
        )

    def __repr__(self) -> str:
        h, w = self.input.size
        classes = f", {len(self.labels)} classes" if self.labels else ""
        return f"Model({self.name!r}, input ({self.input.channels}, {h}, {w}){classes})"

    @property
    def device(self) -> torch.device:
        return self._first().device

    @property
    def dtype(self) -> torch.dtype:
        return self._first().dtype

    def _first(self) -> Tensor:
        floats = (t for t in chain(self.network.parameters(), self.network.buffers()) if t.is_floating_point())
        return next(floats, torch.empty(0))

    def __call__(self, images: Tensor) -> Any:
        """The network's raw output for images (N, C, H, W) in [0, 1]. Raises NetworkError where the network fails."""
        inputs = self.normalised(images)
        before, _RUNNING.here = is_running(), True
        try:
            return self.network(inputs)
        except Exception as error:
            if isinstance(error, VizcnnError) or images.is_meta or is_out_of_memory(error):
                raise
            raise to_network_error(error, images, self.input.size) from error
        finally:
            _RUNNING.here = before

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network was trained to see them."""
        if images.dim() != 4 or images.shape[1] != self.input.channels:
            raise ShapeError(f"{self.name} takes (N, {self.input.channels}, H, W), got {tuple(images.shape)}")
        per_channel = (1, -1, 1, 1)
        mean, std = (
            torch.tensor(values, dtype=images.dtype, device=self.device).view(per_channel)
            for values in (self.input.mean, self.input.std)
        )
        return (images - mean) / std  # (N, C, H, W)

    def grey(self, size: tuple[int, int] | None = None) -> Tensor:
        """A mid-grey input (1, C, H, W), by default of the contract's size: for questions that no image decides."""
        return torch.full(
            (1, self.input.channels, *(size or self.input.size)), 0.5, device=self.device, dtype=self.dtype
        )

    def prepared(self, photo: Photo) -> tuple[Tensor, Box]:
        """A photograph as input (C, H, W) in [0, 1], and the box of the photograph that this input shows."""
        inputs, seen = self.input.prepared(photo)
        return inputs.to(self.device, self.dtype), seen

    def layers(self) -> dict[str, nn.Module]:
        """Every module inside the network by its dotted name, in the order of registration."""
        return {name: module for name, module in self.network.named_modules() if name}

    def layer(self, name: str) -> nn.Module:
        """The module of this dotted name. Raises LayerNotFound."""
        layers = self.layers()
        if name not in layers:
            raise LayerNotFound(
                f"no layer named {name!r} in {self.name}.{did_you_mean(name, layers)} See the names in Model.layers()"
            )
        return layers[name]

    def class_index(self, label: str) -> int:
        """Position of a class in the output, by its name; case matters only where names differ in nothing else.

        Raises TargetError."""
        return find_class_index(label, self.labels, self.name)

    def class_name(self, index: int) -> str:
        """The name of a class, or its number where names are unknown."""
        return self.labels[index] if self.labels and index < len(self.labels) else str(index)

    def weights_sha256(self) -> str:
        """Digest over all parameters and buffers with their names, shapes and types."""
        named = sorted(chain(self.network.named_parameters(), self.network.named_buffers()))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            pieces = pool.map(_digest, [piece for _, value in named for piece in _split_bytes(value)])
            names = [f"{name} {value.dtype} {tuple(value.shape)};".encode() for name, value in named]
            return hashlib.sha256(b"".join([*names, *pieces])).hexdigest()

    def network_sha256(self) -> str:
        """Digest of what makes the network beside its weights: layers, code, labels and head, see
        `vizcnn.models.making`."""
        return digest_making(self.network, self.labels, self.head)

    def provenance(self) -> dict[str, Any]:
        """What identifies this model in a saved result."""
        return {
            "model": self.name,
            "weights_sha256": self.weights_sha256(),
            "input": asdict(self.input),
            "network_sha256": self.network_sha256(),
        }

    def borrowed(self) -> AbstractContextManager[nn.Module]:
        """The network in eval mode with frozen parameters; afterwards it is exactly as before.

        Other threads that borrow it, or a network that shares modules or weights with it, wait. See
        `vizcnn.models.restoring`."""
        return borrow_network(self.network)


_RUNNING = threading.local()


def is_running() -> bool:
    """Whether this thread is inside a call of a Model. Layers that run otherwise are run by somebody else."""
    return getattr(_RUNNING, "here", False)


def find_class_index(label: str, labels: Sequence[str] | None, model: str) -> int:
    """Position of a class among labels, see Model.class_index. model: its name, for messages.

    Digits are a class's number, or a name where no class has that number; `=10` is the class named 10. Raises
    TargetError where they are the number of one class and the name of another."""
    number = int(label) if re.fullmatch("0|[1-9][0-9]{0,17}", label) else None
    name = label.removeprefix("=") if labels is None or label not in labels else label
    same = [i for i, known in enumerate(labels or ()) if known == name]
    if same and number is not None and number >= len(labels or ()):
        number = None
    if number is not None and same in ([], [number]):
        return number
    if number is not None:
        raise TargetError(
            f"{label!r} names class number {same[0]} of {model} and is the number of another. "
            f"Give '#{label}' for number {label}, or '={label}' for the class of this name"
        )
    if labels is None:
        raise TargetError(
            f"{model} has no class names, got {label!r}. Give the class as a number, or Model(labels=...)"
        )
    same = same or [i for i, known in enumerate(labels) if known.lower() == name.lower()]
    if len(same) > 1:
        raise TargetError(f"{label!r} names several classes of {model}: {', '.join(map(str, same))}. Give one number")
    if not same:
        raise TargetError(
            f"no class or layer target named {label!r} in {model} ({len(labels)} classes).{did_you_mean(label, labels)}"
        )
    return same[0]


def _split_bytes(value: Tensor) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The bytes of a tensor, in parts that threads can digest at the same time."""
    plain = value.detach().cpu().contiguous().flatten()
    data = plain.view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
    yield from (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _digest(data: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return hashlib.sha256(data.data).digest()


def _parse_size(size: Any) -> tuple[int, int]:
    """Height and width from a side or a pair. Raises ParameterError."""
    try:
        height, width = (size, size) if hasattr(size, "__index__") else size
        return index(height), index(width)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"size is a side in px or (height, width), got {size!r}") from error


def _parse_per_channel(name: str, values: Sequence[float] | None, default: float, channels: int) -> tuple[float, ...]:
    try:
        return tuple(map(float, values)) if values is not None else (default,) * channels
    except TypeError as error:
        raise ParameterError(f"{name} is a sequence of {channels} numbers, got {values!r}") from error


def _refuse_what_cannot_be_probed(network: nn.Module) -> None:
    """Raise ParameterError for TorchScript, for what is no nn.Module, and for weights without values."""
    if isinstance(network, torch.jit.ScriptModule):
        raise ParameterError(
            "TorchScript networks cannot be probed: hooks on them raise or silently never fire, so no picture could be "
            "trusted. Use the original Python network and load its weights into it"
        )
    if not isinstance(network, nn.Module):
        raise ParameterError(f"a network is an nn.Module, got {type(network).__name__}")
    for name, parameter in network.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise ParameterError(f"parameter {name!r} has no values yet (a lazy module). Run the network once first")
        if parameter.is_meta:
            raise ParameterError(
                f"parameter {name!r} has no values (it is on the device meta). Load the weights first: "
                "load_state_dict(..., assign=True)"
            )
    for name, buffer in network.named_buffers():
        if buffer.is_meta:
            raise ParameterError(
                f"buffer {name!r} has no values (it is on the device meta), and no checkpoint holds it if it is not "
                "persistent. Make the network outside `torch.device('meta')`, or set this buffer"
            )
