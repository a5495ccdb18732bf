"""Chains: convolutions of a graph and the steps around each that can be done together with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, float32

from vizcnn.graph.recording import Graph, Ref, Step, find_refs
from vizcnn.occlusion.kernels.packed import activation_of, is_product

_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")


@dataclass
class Chain:
    """A convolution and the steps behind it that one operation can do, in their order.

    before: a BatchNorm and a ReLU before it, which nothing else needs, if its kernel is one place.
    in_place: whether these may overwrite what they read."""

    convolution: Step
    before: tuple[Step, Step] | None = None
    in_place: bool = False
    norm: Step | None = None
    addition: Step | None = None
    activation: Step | None = None

    @property
    def steps(self) -> list[Step]:
        links = (self.convolution, self.norm, self.addition, self.activation)
        return [step for step in links if step is not None]

    @property
    def value(self) -> int:
        """What the chain leads to so far."""
        return self.steps[-1].outputs[0]

    @property
    def added(self) -> dict[str, Ref]:
        """The argument for what is added."""
        if self.addition is None:
            return {}
        own = {step.outputs[0] for step in self.steps}
        return {"added": Ref(next(value for value in self.addition.inputs if value not in own))}


def chains(graph: Graph) -> Iterator[Chain]:
    """Each convolution that can be packed, with what goes with it; no step is in two chains."""
    uses = Counter(value for tree in (graph.wanted, *(step.args for step in graph.steps)) for value in find_refs(tree))
    follows = {value: step for step in graph.steps for value in step.inputs if uses[value] == 1}
    makes = {step.outputs[0]: step for step in graph.steps}
    taken: set[int] = set()
    for convolution in (step for step in graph.steps if _packable(step, graph)):
        chain = Chain(convolution)
        before = _before(convolution, makes, follows)
        if before and _is_constant_norm(before[0], uses) and taken.isdisjoint(step.outputs[0] for step in before):
            chain.before = before
            source = before[0].inputs[0]
            chain.in_place = follows.get(source) is before[0] and _is_joined(makes.get(source))
        _extend(chain, graph, {value: step for value, step in follows.items() if step.outputs[0] not in taken}, uses)
        taken.update(step.outputs[0] for step in (*chain.steps, *(chain.before or ())))
        yield chain


def _extend(chain: Chain, graph: Graph, follows: dict[int, Step], uses: Counter[int]) -> None:
    """Take in a norm, an addition and an activation, as far as they follow."""
    if (after := follows.get(chain.value)) and _is_constant_norm(after, uses):
        chain.norm = after
    if (after := follows.get(chain.value)) and _adds(after, chain, graph):
        chain.addition = after
    if (after := follows.get(chain.value)) and activation_of(after):
        chain.activation = after


def _before(convolution: Step, makes: dict[int, Step], follows: dict[int, Step]) -> tuple[Step, Step] | None:
    """The two steps that lead to a convolution of one place alone, if the second is a ReLU."""
    relu = makes.get(convolution.inputs[0])
    if relu is None or relu.name != "relu" or not is_product(convolution.args):
        return None
    norm = makes.get(relu.inputs[0])
    alone = follows.get(relu.outputs[0]) is convolution and follows.get(relu.inputs[0]) is relu
    return (norm, relu) if norm and alone else None


def _is_joined(step: Step | None) -> bool:
    """Whether a step makes memory that nothing else looks at, by joining several tensors."""
    return step is not None and step.name == "cat" and len(step.inputs) > 1


def _packable(step: Step, graph: Graph) -> bool:
    weight = step.args.get("weight")
    if step.name != "convolution" or step.args["transposed"] or not isinstance(weight, Tensor) or weight.dim() != 4:
        return False
    ours = not isinstance(step.args["bias"], Ref) and len(step.inputs) == 1 and graph.shapes[step.inputs[0]] is not None
    return ours and weight.dtype == float32 and weight.device.type == "cpu" and not weight.is_mkldnn


def _is_constant_norm(step: Step, uses: Counter[int]) -> bool:
    """Whether a step is a BatchNorm by running statistics that are constants, of which only the outcome is used."""
    if step.name not in _NORMS:
        return False
    constants = all(isinstance(step.args[name], Tensor) for name in ("running_mean", "running_var"))
    own = not any(isinstance(step.args[name], Ref) for name in ("weight", "bias"))
    return constants and own and not step.args.get("training") and not any(uses[v] for v in step.outputs[1:])


def _adds(step: Step, chain: Chain, graph: Graph) -> bool:
    """Whether a step adds another value of the same shape to the chain.

    The convolution then waits for that value. It must not read it too, nor what is overwritten in the meantime."""
    others = {*step.inputs} - {chain.value}
    if step.name != "add" or step.args["alpha"] != 1 or len(others) != 1:
        return False
    other, reads = others.pop(), chain.convolution.inputs[0]
    start, end = chain.convolution.outputs[0], step.outputs[0]  # values are numbered as they are made
    meantime = (each for each in graph.steps if start < each.outputs[0] < end)
    waits = other != reads and all(each.changes != reads for each in meantime)
    return waits and graph.shapes[other] == graph.shapes[chain.value] is not None
