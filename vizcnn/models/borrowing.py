"""Borrowing a network: all that holds while somebody looks at it, and is undone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vizcnn.errors import DegenerateResult, VizcnnError
from vizcnn.models.activation_checkpoints import no_checkpoints
from vizcnn.models.layers.axes import remembering
from vizcnn.models.model import Model
from vizcnn.models.threads import random_state_kept


@contextmanager
def borrow(model: Model, what: str) -> Iterator[None]:
    """Borrow the model's network; afterwards it and the random state are as they were. `what` says in errors for what.

    Other threads that ask the same network wait. Raises DegenerateResult where the images of a batch change each
    other's answer."""
    with (
        explained(f"{what} on {model.name}"),
        _outside_inference_mode(),
        random_state_kept(),
        model.borrowed(),
        remembering(model),
        no_checkpoints(),
    ):
        _refuse_batch_statistics(model.network)
        yield


@contextmanager
def _outside_inference_mode() -> Iterator[None]:
    """Leave the caller's inference mode, if there is one: nothing made in it can have gradients."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def explained(context: str) -> Iterator[None]:
    try:
        yield
    except VizcnnError as error:
        if context:
            error.within(context)
        raise
    except Exception as error:
        if context:
            error.add_note(f"vizcnn: {context}")
        raise


def _refuse_batch_statistics(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise DegenerateResult(
                f"layer {name!r} normalises with the statistics of each batch (track_running_stats=False), so images "
                "probed together would change each other's answer. Use a network with running statistics"
            )
