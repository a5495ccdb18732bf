"""One at a time: networks that take one image only, such as those that say `view(1, -1)` or were exported for one.

They are found out where a run of several images fails, or gives the answer to one, as `x[0]` does, and each of them
alone does not. From then on each runs alone.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import NetworkError, VizcnnWarning
from vizcnn.models.functions import OUTPUT, RAW
from vizcnn.models.model import Model
from vizcnn.models.outputs import Unsettled, find_output

Read = Callable[[Tensor], dict[str, Any]]
"""From images (N, C, H, W) to activations."""


def read_each(model: Model, images: Tensor, read: Read) -> dict[str, Any]:
    """What `read` gives for all images (N, C, H, W) together, or where the network takes one only, for each alone.

    Raises NetworkError."""
    if model.one_at_a_time and len(images) > 1:
        return join_activations([read(one.contiguous()) for one in images.split(1)])
    try:
        found = read(images)
    except NetworkError as error:
        if alone := _read_alone(model, images, read, str(error.__cause__ or error)):
            return alone
        raise
    if _is_of_one(model, found, len(images)):
        return _read_alone(model, images, read, f"it gives one answer for {len(images)}") or found
    return found


def _is_of_one(model: Model, found: Mapping[str, Any], images: int) -> bool:
    """Whether what the network returned for several images is no output for these, but would be for one; of a run that
    ended at layers, whether they give this for one."""
    if images < 2:
        return False
    if OUTPUT not in found:
        return all(isinstance(one, Tensor) and one.dim() <= 4 and len(one) == 1 for one in found.values())
    return isinstance(found[OUTPUT], Unsettled) and isinstance(find_output(found[RAW], model.output, 1), Tensor)


def _read_alone(model: Model, images: Tensor, read: Read, reason: str) -> dict[str, Any] | None:
    """What each of the images (N, C, H, W) gives alone, joined; None where they fail for another reason than being
    several. The model then remembers it, and it is said once. reason: what went wrong with all of them together."""
    if len(images) < 2 or not images.is_contiguous():  # another memory format may be the reason
        return None
    try:
        found = [read(one) for one in images.split(1)]
    except Exception:  # what the run of several raised says more
        return None
    if _takes_several_after_all(model, images, read):
        return None
    model.one_at_a_time = True
    warnings.warn(
        f"{model.name} answers for one image, but not for several at once ({reason}): each runs alone, which is slower",
        VizcnnWarning,
        stacklevel=2,
    )
    return join_activations(found)


def _takes_several_after_all(model: Model, images: Tensor, read: Read) -> bool:
    """Whether a second run of several images does what the first did not: then it was a failure of that moment."""
    try:
        return not _is_of_one(model, read(images), len(images))
    except NetworkError:
        return False


def join_activations(alone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The activations of several images as one run would give them, from those of each image alone."""
    return {
        name: (_join_raw if name == RAW else _join)([one[name] for one in alone])
        for name in alone[0]
        if all(name in one for one in alone)
    }


def _join(parts: Sequence[Any]) -> Any:
    """Layers' outputs (1, ...), one after the other; where the network's output is unsettled, that of the first."""
    return parts[0] if isinstance(parts[0], Unsettled) else torch.cat([*parts])


def _join_raw(parts: Sequence[Any]) -> Any:
    """What the network returned for each image alone, in one structure of the same kind."""
    first = parts[0]
    if isinstance(first, Tensor):
        kept = first.dim() > 0 and len(first) == 1  # otherwise the axis of images was squeezed away
        return torch.cat([*parts]) if kept else torch.stack([*parts])
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{n: _join_raw([getattr(one, n) for one in parts]) for n in names})
    if isinstance(first, Mapping):
        return {key: _join_raw([one[key] for one in parts]) for key in first}
    if isinstance(first, list) and len(first) == 1 and isinstance(first[0], Mapping):
        return [one[0] for one in parts]  # a dictionary for each image
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*map(_join_raw, zip(*parts, strict=True)))
    if isinstance(first, list | tuple):
        return type(first)(map(_join_raw, zip(*parts, strict=True)))
    return first
