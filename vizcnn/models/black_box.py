"""Black boxes: what can only be asked, a function or a network without layers that hooks could see, as a network.

Occlusion and RISE compare answers to altered images, so they need nothing else. All that looks inside, or asks for
gradients, refuses a black box with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from vizcnn.errors import NetworkError, ParameterError, UnsuitableNetwork, VizcnnError
from vizcnn.models.failing import is_out_of_memory
from vizcnn.models.unwrapping import list_tensors

Kind = Literal["function", "scripted", "exported", "quantized"]

_REASONS: dict[Kind, tuple[str, str]] = {
    "function": ("a function shows its answers only", "wrap the network itself, an nn.Module"),
    "scripted": (
        "hooks on a TorchScript network raise or silently never fire",
        "load its weights into the original Python network",
    ),
    "exported": (
        "an exported network has no layers, so hooks on them never fire",
        "load its weights into the original Python network",
    ),
    "quantized": ("whole numbers have no gradients", "take the network as it was before it was quantized"),
}
"""Why each kind is a black box, and what to do for the probes that it cannot serve."""


class BlackBox(nn.Module):
    """A function from images to numbers, in the place of a network.

    A plain function gets a float32 array (N, C, H, W), or a tensor where its parameter is annotated so
    (`def ask(images: torch.Tensor)`); scripted, exported and quantized networks get a tensor, and run in eval mode. It
    returns the numbers as an array, a tensor or a list, one row per image, or several of these in a list, tuple or
    dictionary; of a detector, a list with a dictionary for each image, see `vizcnn.models.detection`. Raises
    NetworkError where it fails, and for what is no numbers."""

    def __init__(self, function: Callable[..., Any], kind: Kind) -> None:
        super().__init__()
        self.function: Any
        self.kind, self.takes_tensor = kind, kind != "function" or _asks_for_tensor(function)
        self.__dict__["function"] = function  # not as a part: nobody is to look for layers in it

    def forward(self, images: Tensor) -> Any:
        given = images.detach()  # (N, C, H, W)
        if isinstance(self.function, nn.Module) and (like := next(self.function.parameters(), None)) is not None:
            given = given.to(like)
        with torch.no_grad(), _set_to_eval(self.function):
            try:
                answer = self.function(given if self.takes_tensor else _to_array(given))
            except Exception as error:
                if isinstance(error, VizcnnError) or is_out_of_memory(error):
                    raise
                raise NetworkError(self._describe_failure(error, images)) from error
        return _to_tensors(answer, len(images))

    def _describe_failure(self, error: Exception, images: Tensor) -> str:
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        form = "a tensor" if self.takes_tensor else "an array"
        remedy = "Does it take images of this shape and type?"
        if not self.takes_tensor and ("Tensor" in str(error) or "ndarray" in str(error)):
            remedy = "For a tensor write `def ask(images: torch.Tensor)`, or torch.from_numpy(images) inside"
        elif isinstance(error, OSError):
            remedy = "Is the file or service that it asks within reach?"
        elif len(images) > 1:
            remedy = "Does it take several images at once?"
        return f"the function fails on {form} {tuple(images.shape)} of float32: {said.rstrip('.')}. {remedy}"


def wrap_black_box(network: Any) -> nn.Module:
    """The network as it is; a function, or a network that hooks cannot look into, as a BlackBox. Raises ParameterError
    for what cannot be asked anything."""
    if isinstance(network, torch.export.ExportedProgram):
        return BlackBox(network.module(), "exported")
    if isinstance(network, nn.Module):
        kind = _find_kind(network)
        return BlackBox(network, kind) if kind else network
    if not callable(network) or isinstance(network, type):
        made = " It is a class: make one first, with ()" if isinstance(network, type) else ""
        got = network.__name__ if isinstance(network, type) else type(network).__name__
        raise ParameterError(f"a network is an nn.Module, or any function from images to numbers, got {got}.{made}")
    return BlackBox(network, "function")


def name_network(network: nn.Module) -> str:
    """What a network, or the function in its place, calls itself."""
    if not isinstance(network, BlackBox):
        return type(network).__name__
    own = getattr(network.function, "original_name", None) or getattr(network.function, "__name__", None)
    name = own if isinstance(own, str) and own != "<lambda>" else type(network.function).__name__
    return "black box" if name == "function" else name


def refuse_black_box(network: nn.Module, name: str, why: str = "it needs layers or gradients") -> None:
    """Raise UnsuitableNetwork where a network is a black box. name: the model's. why: what is asked for."""
    if isinstance(network, BlackBox):
        reason, remedy = _REASONS[network.kind]
        raise UnsuitableNetwork(
            f"{why}, and {name} is a black box: {reason}. Use occlusion or rise with a class, or {remedy}"
        )


def mixes_images(network: nn.Module) -> bool:
    """Whether a network is quantized dynamically: with one scale for the activations of all images in a run."""
    return (
        isinstance(network, BlackBox)
        and network.kind == "quantized"
        and any("dynamic" in type(module).__module__.split(".") for module in network.function.modules())
    )


def list_weights(network: nn.Module) -> list[tuple[str, Tensor]]:
    """All parameters and buffers by name. Of a black box none, unless they decide its answers."""
    if not isinstance(network, BlackBox):
        return list_tensors(network)
    if network.kind in ("function", "quantized"):  # whose whole numbers are in neither
        return []
    return [*network.function.named_parameters(), *network.function.named_buffers()]


def _find_kind(network: nn.Module) -> Kind | None:
    """What makes a module a black box; None where nothing does."""
    if isinstance(network, torch.jit.ScriptModule):
        return "scripted"
    if isinstance(network, GraphModule) and any(
        node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) for node in network.graph.nodes
    ):
        return "exported"
    return "quantized" if any(map(_is_quantized, network.modules())) else None


def _is_quantized(module: nn.Module) -> bool:
    home, *rooms = type(module).__module__.split(".")
    return home == "torch" and "quantized" in rooms


def _asks_for_tensor(function: Callable[..., Any]) -> bool:
    """Whether the first parameter of a function is annotated as a tensor."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return False
    annotation = first.annotation if first else None
    return annotation is Tensor or (isinstance(annotation, str) and annotation.split(".")[-1] == "Tensor")


def _to_array(images: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ascontiguousarray(images.float().cpu().numpy())  # (N, C, H, W)


@contextmanager
def _set_to_eval(function: Any) -> Iterator[None]:
    """While the context is open, a network that knows modes is in eval mode."""
    modules = [m for m in function.modules() if m.training] if isinstance(function, nn.Module) else []
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


def _to_tensors(answer: Any, images: int) -> Any:
    """A function's answer with a tensor in the place of each array. Numbers that come alone are floats; so are those of
    a list with a row for each image."""
    if isinstance(answer, Mapping):
        return {key: _to_tensor(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple) and answer and all(isinstance(one, Mapping) for one in answer):
        return [_to_tensors(one, 1) for one in answer]  # a detector's
    if isinstance(answer, list | tuple) and answer and all(hasattr(one, "shape") for one in answer):
        several = [_to_tensor(one) for one in answer]
        if len(several) != images or any(one.dim() > 1 or one.shape != several[0].shape for one in several):
            return several
        answer = torch.stack(several)
    one = _to_tensor(answer)
    return one if one.is_floating_point() else one.float()


def _to_tensor(numbers: Any) -> Tensor:
    """Numbers as a tensor in main memory. Raises NetworkError."""
    if isinstance(numbers, Tensor):
        plain = numbers.detach().cpu()
        return plain.dequantize() if plain.is_quantized else plain
    try:
        array = np.asarray(numbers)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiub":
        raise NetworkError(
            f"the function must return numbers, as an array, a tensor or a list with a row for each image, got "
            f"{type(numbers).__name__}"
        )
    kind = np.dtype(np.float32) if isinstance(numbers, list | tuple | float) else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, kind))
