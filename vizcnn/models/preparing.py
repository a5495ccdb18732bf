"""Preparing: from what was read, a photograph or a tensor, to what a network takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vizcnn.errors import ParameterError, ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.tensors import check_unit_range, to_photo
from vizcnn.models.model import Model


def require_model(what: str, model: Any) -> None:
    """Raise ParameterError for what is no Model. what: who needs one."""
    if not isinstance(model, Model):
        raise ParameterError(
            f"{what} needs a vizcnn.Model, got {type(model).__name__}. "
            "Wrap a network: vizcnn.Model(network, size=..., mean=..., std=...), or vizcnn.load('tiny')"
        )


def prepare_source(model: Model, source: Photo | Tensor) -> list[tuple[Photo, Box, Tensor] | ShapeError]:
    """The photograph of each image in a source, the box of it that the network sees, and the input (C, H, W); of one
    among several that cannot be used, why.

    A photograph is resized and cropped; a tensor is an input already, and its photograph is made from it."""
    if not isinstance(source, Tensor):
        inputs, box = model.prepared(source)  # (C, H, W)
        return [(source, box, inputs)]
    batch = source[None] if source.dim() == 3 else source
    if batch.dim() != 4 or batch.shape[1] != model.input.channels:
        raise ShapeError(
            f"an input tensor is ({model.input.channels}, H, W) or a batch of these, got {tuple(source.shape)}"
        )
    values = batch.detach().to(model.device, model.dtype)
    if not batch.numel():
        raise ShapeError(f"an input tensor is empty: {tuple(source.shape)}. Pass at least one image")
    own = values.clone()  # what the person does to theirs later must not reach the result
    near = own.cpu()  # (N, C, H, W), moved at once
    errors = [_find_fault(one) for one in near]
    if errors[0] and all(errors):
        raise errors[0]
    parts = zip(errors, near, own, strict=True)
    return [error or (to_photo(one), Box(0, 0, *one.shape[1:]), x) for error, one, x in parts]


def _find_fault(image: Tensor) -> ShapeError | None:
    """Why an input (C, H, W) cannot be used; None if it can."""
    try:
        check_unit_range(image)
    except ShapeError as error:
        return error
    return None
