"""Outputs: from whatever a network returns to the one tensor (N, K) or (N, K, H, W) that classes are read from.

Networks return tensors, tuples, dictionaries, dataclasses, or lists with a dictionary per image. Which tensor is meant
is settled here, for everything that asks: targets, predictions, maps, scans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from vizcnn.errors import ParameterError, TargetError, did_you_mean

Pick = str | int | Callable[[Any], Tensor]
"""Which part of what a network returns is its output: a key, an index, or a function of all of it. Keys and indices
inside others are joined by points: `aux.0`."""

_REMEDY = "Give a target that is a function of what the network returns, or say Model(output=...)"
_LISTED = 8  # tensors that a message lists


@dataclass(frozen=True)
class Unsettled:
    """Stands in the place of a network's output where it is not clear which tensor that is. reason: why, and what to
    do."""

    reason: str


def check_pick(output: Any) -> Pick | None:
    """What a person gave as `output=`. Raises ParameterError where it can be no key, index or function."""
    if output is None or (isinstance(output, str | int) and not isinstance(output, bool)) or callable(output):
        return output  # type: ignore[no-any-return]
    raise ParameterError(f"output is a key, an index or a function of what the network returns, got {output!r}")


def settle_output(raw: Any, output: Pick | None, images: int) -> Tensor:
    """The one tensor (N, K) or (N, K, H, W) in what a network returns for N images.

    output: which it is; by default the only floating tensor of such a shape with an entry for each image. An axis that
        the network has squeezed away comes back: (N,) is one number per image, (N, 1), and for a single image () is
        (1, 1), (K,) is (1, K) and (K, H, W) is (1, K, H, W).

    Raises TargetError where there is no such tensor, or several: no key is preferred."""
    if callable(output):
        try:
            picked = output(raw)
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise TargetError(
                f"the Model's output= fails on {_describe(raw)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(picked, Tensor):
            raise TargetError(f"the Model's output= must return a tensor, got {type(picked).__name__}")
        raw, output = picked, None
    if isinstance(raw, Tensor) and output is None:
        return _settle_tensor(raw, images)
    found = _pick(list_tensors(raw), output, raw)
    if isinstance(raw, list) and output is None and len(raw) == images and all(isinstance(one, Mapping) for one in raw):
        found = {}  # a detector's: what has the right shape has it by chance
    whole = {path: value for path, value in found.items() if _is_whole(value, images)}
    usable = whole or {path: value for path, value in found.items() if value.shape == (images,) and _is_float(value)}
    if len({id(value) for value in usable.values()}) == 1:
        return _settle_tensor(next(iter(usable.values())), images)
    if output is not None and len(found) == 1:
        return _settle_tensor(next(iter(found.values())), images, f" at {output!r}")
    raise TargetError(_describe_choice(raw, usable, images))


def find_output(raw: Any, output: Pick | None, images: int) -> Tensor | Unsettled:
    """As `settle_output`, with what speaks against it in place of an error: a target may need the output as it is."""
    try:
        return settle_output(raw, output, images)
    except TargetError as error:
        return Unsettled(str(error))


def require_output(output: Any) -> Tensor:
    """The output that `find_output` has found. Raises TargetError where it is not clear which tensor that is."""
    if isinstance(output, Unsettled):
        raise TargetError(output.reason)
    assert isinstance(output, Tensor)
    return output


def list_tensors(raw: Any) -> dict[str, Tensor]:
    """All tensors in what a network returns, by their keys, indices and names of fields, joined by points."""
    return dict(_walk(raw, ""))


def _walk(part: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield path, part
    for key, inner in _list_parts(part):
        yield from _walk(inner, f"{path}.{key}" if path else str(key))


def _list_parts(part: Any) -> list[tuple[Any, Any]]:
    """The parts of a mapping, of a dataclass, of a tuple with or without names, or of a list, each with its key."""
    if isinstance(part, Mapping):
        return [*part.items()]
    if is_dataclass(part) and not isinstance(part, type):
        return [(field.name, getattr(part, field.name)) for field in fields(part)]
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return [*zip(part._fields, part, strict=True)]
    return [*enumerate(part)] if isinstance(part, list | tuple) else []


def _pick(tensors: dict[str, Tensor], output: Pick | None, raw: Any) -> dict[str, Tensor]:
    """The tensors at this key or below it. Raises TargetError where there are none."""
    if output is None:
        return tensors
    keys = [str(key) for key, _ in _list_parts(raw)]
    key = keys[output] if isinstance(output, int) and -len(keys) <= output < len(keys) else str(output)
    found = {path: value for path, value in tensors.items() if path == key or path.startswith(f"{key}.")}
    if not found:
        raise TargetError(
            f"the Model's output= is {output!r}, and the network returns {_describe(raw)}."
            f"{did_you_mean(str(output), tensors)}"
        )
    return found


def _is_float(value: Tensor) -> bool:
    return value.is_floating_point()


def _is_whole(value: Tensor, images: int) -> bool:
    """Whether a tensor is (N, K) or (N, K, H, W) for so many images."""
    return value.dim() in (2, 4) and len(value) == images and _is_float(value)


def _settle_tensor(value: Tensor, images: int, where: str = "") -> Tensor:
    """A tensor as (N, K) or (N, K, H, W), with the axes that were squeezed away. Raises TargetError."""
    if _is_whole(value, images):
        return value
    if _is_float(value):
        if value.shape == (images,):
            return value[:, None]  # (N, 1)
        if images == 1 and value.dim() in (0, 1, 3) and (value.dim() < 3 or len(value) > 1):
            return value.reshape(1, 1) if value.dim() == 0 else value[None]  # (1, 1), (1, K) or (1, K, H, W)
    kind = "" if _is_float(value) else f" of {str(value.dtype).removeprefix('torch.')}"
    raise TargetError(
        f"the network's output{where} is {tuple(value.shape)}{kind} for {_count(images)}, not (N, C) or (N, C, H, W) "
        f"of floats. {_REMEDY}"
    )


def _describe_choice(raw: Any, usable: Mapping[str, Tensor], images: int) -> str:
    if len(usable) > 1:
        named = ", ".join(f"{path} {tuple(value.shape)}" for path, value in [*usable.items()][:_LISTED])
        return f"the network returns several tensors that could be its output: {named}. {_REMEDY}"
    return f"the network returns {_describe(raw)}, which is not (N, C) or (N, C, H, W) for {_count(images)}. {_REMEDY}"


def _describe(raw: Any) -> str:
    """What a network returns, in words: its type and the tensors inside."""
    if isinstance(raw, Tensor):
        return f"one tensor {tuple(raw.shape)}"
    tensors = list_tensors(raw)
    named = ", ".join(f"{path} {tuple(value.shape)}" for path, value in [*tensors.items()][:_LISTED])
    more = f" and {len(tensors) - _LISTED} more" if len(tensors) > _LISTED else ""
    return f"{type(raw).__name__} with {named}{more}" if tensors else f"{type(raw).__name__} without tensors"


def _count(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"
