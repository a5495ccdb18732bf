"""Borrowing: what is set up while somebody looks at a network, and undone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vizcnn.errors import UnsuitableNetwork, VizcnnError
from vizcnn.models.activation_checkpoints import skip_checkpoints
from vizcnn.models.layers.axes import remember_layers
from vizcnn.models.model import Model
from vizcnn.models.threads import keep_random_state, round_as_float32
from vizcnn.models.unwrapping import run_compiled_code_as_written


@contextmanager
def borrow(model: Model, what: str) -> Iterator[None]:
    """Borrow a model's network; afterwards it and the random state are as they were.

    what: who borrows it, for error messages; "" where they say it already. Other threads that ask for the same network
    wait. Raises UnsuitableNetwork for a network that normalises with the statistics of each batch."""
    with (
        add_context(what and f"{what} on {model.name}"),
        _leave_inference_mode(),
        keep_random_state(),
        round_as_float32(),
        model.borrowed(),
        remember_layers(model),
        skip_checkpoints(),
        run_compiled_code_as_written(),
    ):
        _refuse_batch_statistics(model.network)
        _refuse_hooks_of_all_gradients()
        yield


@contextmanager
def _leave_inference_mode() -> Iterator[None]:
    """Leave the caller's inference mode, if there is one: nothing made in it can have gradients."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def add_context(context: str) -> Iterator[None]:
    """Add `context`, such as `Occlusion on resnet18`, to every error that leaves this block."""
    try:
        yield
    except VizcnnError as error:
        if context:
            error.add_context(context)
        raise
    except Exception as error:
        if context:
            error.add_note(f"vizcnn: {context}")
        raise


def _refuse_batch_statistics(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UnsuitableNetwork(
                f"layer {name!r} normalises with the statistics of each batch (track_running_stats=False), so images "
                "probed together would change each other's answer. Use a network with running statistics"
            )


def _refuse_hooks_of_all_gradients() -> None:
    """Raise UnsuitableNetwork where backward hooks are on every module of the process. Those of single modules are set
    aside, but these belong to other networks and threads too."""
    kinds = ("_global_backward_hooks", "_global_backward_pre_hooks")
    if any(getattr(torch.nn.modules.module, kind, ()) for kind in kinds):
        raise UnsuitableNetwork(
            "there are backward hooks on all modules of this process (register_module_full_backward_hook), which may "
            "change every gradient. Remove them first: call `remove()` of the handle that registering gave"
        )
