"""Model: the network under study and everything needed to use it rightly."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizcnn.errors import (
    LayerNotFound,
    ParameterError,
    ShapeError,
    TargetError,
    VizcnnError,
    did_you_mean,
)
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.models.black_box import BlackBox, list_weights, mixes_images, name_network, refuse_black_box, wrap_black_box
from vizcnn.models.constants import make_constant
from vizcnn.models.contract import InputContract, parse_display, parse_per_channel, parse_size
from vizcnn.models.digesting import digest_tensors
from vizcnn.models.failing import is_out_of_memory, to_network_error
from vizcnn.models.head import Head, check_head
from vizcnn.models.labels import parse_labels
from vizcnn.models.making import digest_making
from vizcnn.models.outputs import Pick, check_pick
from vizcnn.models.restoring import borrow_network
from vizcnn.models.unwrapping import list_modules, unwrap


class Model:
    """A network with its input contract and the names of its classes.

    Calling it with a tensor (N, C, H, W) in [0, 1] normalises and runs the network, so gradients arrive at real pixels.

    network: any nn.Module that takes (N, C, H, W). It stays where it is and is never changed. Or any function from an
        array (N, C, H, W) to numbers, such as an ONNX session's: a black box, see `vizcnn.models.black_box`. Of a
        compiled or parallel network the one inside is taken, see `vizcnn.models.unwrapping`.
    size: side of the input in px, or (height, width).
    labels: one name per class, in the order of the output; or a mapping between numbers and names, as
        `vizcnn.models.labels` says.
    head: what the outputs are, see `vizcnn.models.head`: `logits`, `softmax`, `log-softmax`, `sigmoid`,
        `sigmoid-logits` or `scores`. By default it is found out from how the network makes them; logits are then taken
        for those of classes of which one is right, since logits of many labels look the same.
    output: which part of what the network returns is its output (N, K) or (N, K, H, W): a key, an index, or a function
        of all of it. By default the only such tensor, see `vizcnn.models.outputs`.
    forward: a function from the network and normalised images (N, C, H, W) to what the network returns, for one that
        needs more than images: `forward=lambda network, images: network(images, age)`.
    The other arguments are those of InputContract.

    `notes` says in lines what was inferred, taken off or ignored when `vizcnn.load` has loaded the weights, and
    `trusts_pickle` whether it was told to trust pickled files: a probe loads a second network in the same way.
    `default_layer` is the layer that cam, feature-maps and embed look at where they are told of none.

        >>> import vizcnn
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> model = vizcnn.Model(network, size=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), labels=["cat", "dog"])
        >>> model.class_index("dog"), list(model.layers())[:2]
        (1, ['0', '1'])
    """

    def __init__(
        self,
        network: nn.Module | Callable[[Any], Any],
        *,
        size: int | tuple[int, int],
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        fit: Literal["crop", "stretch"] = "crop",
        resize: int | None = None,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        antialias: bool = True,
        white: float | None = None,
        display: int | Sequence[int] | None = None,
        labels: Sequence[str] | Mapping[int, str] | Mapping[str, str] | Mapping[str, int] | None = None,
        head: Head | None = None,
        name: str | None = None,
        output: Pick | None = None,
        forward: Callable[[nn.Module, Tensor], Any] | None = None,
    ) -> None:
        self.network = wrap_black_box(unwrap(network) if isinstance(network, nn.Module) else network)
        _refuse_weights_without_values(self.network)
        self.name = name or name_network(self.network)
        self.labels = parse_labels(labels)
        self.head = check_head(head)
        self.default_layer: str | None = None
        self.notes: tuple[str, ...] = ()
        self.trusts_pickle = False
        if not (forward is None or callable(forward)):
            raise ParameterError(f"forward is a function from the network and images to its answer, got {forward!r}")
        self.output, self.forward = check_pick(output), forward
        self.one_at_a_time = mixes_images(self.network)
        """Whether each of several images runs alone: mostly where the network has been found to take only one."""
        self.input = InputContract(
            size=parse_size(size),
            channels=channels,
            mean=parse_per_channel("mean", mean, 0.0, channels),
            std=parse_per_channel("std", std, 1.0, channels),
            fit=fit,
            resize=resize,
            interpolation=interpolation,
            antialias=antialias,
            white=white,
            display=parse_display(display),
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
            return self.forward(self.network, inputs) if self.forward else self.network(inputs)
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
        mean, std = (
            make_constant(values, images, self.device).view(1, -1, 1, 1) for values in (self.input.mean, self.input.std)
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

    @property
    def is_black_box(self) -> bool:
        """Whether only answers can be seen, neither layers nor gradients."""
        return isinstance(self.network, BlackBox)

    def layers(self) -> dict[str, nn.Module]:
        """Every module inside the network by its dotted name, in the order of registration."""
        return {name: module for name, module in list_modules(self.network).items() if name}

    def layer(self, name: str) -> nn.Module:
        """The module of this dotted name. Raises LayerNotFound."""
        layers = self.layers()
        refuse_black_box(self.network, self.name, f"{name!r} is asked for as a layer")
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
        """Digest over all parameters and buffers with their names, shapes and types; empty for a black box, whose
        weights nobody sees."""
        named = list_weights(self.network)
        if self.is_black_box and not named:
            return ""
        return digest_tensors(named)

    def network_sha256(self) -> str:
        """Digest of what makes the network beside its weights: layers, code, labels, head and the default layer, see
        `vizcnn.models.making`."""
        return digest_making(self.network, self.labels, self.head, self.output, self.forward, self.default_layer)

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


def _refuse_weights_without_values(network: nn.Module) -> None:
    """Raise ParameterError for weights without values."""
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
