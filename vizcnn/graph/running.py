"""Running: the steps of a recorded graph on real images, as far as some values need them, or from some values on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vizcnn.graph.recording import Graph, Step, find_last_uses, select_steps

Values = dict[int, Tensor]


def run_graph(graph: Graph, inputs: Tensor, wanted: Iterable[int]) -> Values:
    """These values of the graph for images (N, C, H, W) in [0, 1]; 0 is the images themselves.

    The network must be borrowed. Gradients are followed where they are wanted: switch them off with `torch.no_grad()`.
    """
    return run_steps(select_steps(graph.steps, wanted), {0: inputs}, wanted)


def run_steps(steps: Sequence[Step], given: Mapping[int, Tensor], wanted: Iterable[int]) -> Values:
    """The wanted values after some steps have run. given: what they read of values from before; these stay as they are.

    Values that no later step reads are freed."""
    wanted = frozenset(wanted)
    values, freed = dict(given), find_last_uses(steps, wanted)
    images = len(next(iter(given.values())))
    for i, step in enumerate(steps):
        values |= run_step(step, step.fill_in(values.__getitem__, images))
        for value in freed.get(i, ()):
            values.pop(value, None)
    return {value: values[value] for value in wanted}


def run_step(step: Step, args: dict[str, Any]) -> Values:
    """A step's outputs, by value. What it would overwrite is copied first; a view of a part may need a copy too."""
    if step.changes is not None:
        name = next(iter(args))
        args = {**args, name: args[name].clone()}
    if step.name in ("view", "_unsafe_view"):
        out = torch.ops.aten.reshape.default(args["self"], args["size"])
    else:
        out = step.func(**args)
    return dict(zip(step.outputs, [out] if isinstance(out, Tensor) else out, strict=True))


def select_steps_behind(graph: Graph, value: int, wanted: Collection[int]) -> tuple[list[Step], set[int]]:
    """The steps between a value and the wanted ones that depend on it, in order, and what else they read: values that
    do not depend on it. A wanted value that does not depend on it is among these."""
    depends, behind = {value}, []
    for step in graph.steps:
        if value not in step.outputs and depends.intersection(step.inputs):
            depends.update(step.outputs)
            behind.append(step)
    kept = select_steps(behind, wanted)
    made = {value, *(output for step in kept for output in step.outputs)}
    return kept, {*wanted, *(each for step in kept for each in step.inputs)} - made
