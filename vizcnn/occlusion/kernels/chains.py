"""Chains: the convolutions of a graph, and the steps before and after each that one operation can do with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from torch import Tensor, float32

from vizcnn.graph.geometry import find_neighbourhood
from vizcnn.graph.recording import Graph, Ref, Step, find_refs
from vizcnn.occlusion.kernels.packed import find_activation, is_matrix_product

_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")


@dataclass
class Chain:
    """A convolution and the steps that can be done together with it.

    before: if the kernel is 1x1: the BatchNorm and the ReLU that lead to it, if nothing else needs what they give.
    in_place: whether these may overwrite what they read.
    norm, addition, activation: what follows the convolution, in this order; any may be missing.
    pool: if the kernel is 1x1: the average pooling that follows convolution and norm. It then goes first."""

    convolution: Step
    before: tuple[Step, Step] | None = None
    in_place: bool = False
    norm: Step | None = None
    pool: Step | None = None
    addition: Step | None = None
    activation: Step | None = None

    @property
    def steps(self) -> list[Step]:
        """The convolution and what follows it."""
        links = (self.convolution, self.norm, self.pool, self.addition, self.activation)
        return [step for step in links if step is not None]

    @property
    def output(self) -> int:
        """The value that the chain gives, as far as it goes."""
        return self.steps[-1].outputs[0]

    @property
    def addend(self) -> Ref | None:
        """The value that is added."""
        if self.addition is None:
            return None
        own = {step.outputs[0] for step in self.steps}
        return Ref(next(value for value in self.addition.inputs if value not in own))


def find_chains(graph: Graph) -> Iterator[Chain]:
    """A chain for each convolution that can be packed; no step is in two chains."""
    uses = Counter(value for tree in (graph.wanted, *(step.args for step in graph.steps)) for value in find_refs(tree))
    readers = {value: step for step in graph.steps for value in step.inputs if uses[value] == 1}  # the only ones
    makers = {step.outputs[0]: step for step in graph.steps}
    taken: set[int] = set()
    for convolution in (step for step in graph.steps if _can_pack(step, graph)):
        chain = Chain(convolution)
        before = _find_before(convolution, makers, readers)
        if before and _is_constant_norm(before[0], uses) and taken.isdisjoint(step.outputs[0] for step in before):
            chain.before = before
            source = before[0].inputs[0]
            chain.in_place = readers.get(source) is before[0] and _makes_memory(makers.get(source))
        _extend(chain, graph, {value: step for value, step in readers.items() if step.outputs[0] not in taken}, uses)
        taken.update(step.outputs[0] for step in (*chain.steps, *(chain.before or ())))
        yield chain


def _extend(chain: Chain, graph: Graph, readers: dict[int, Step], uses: Counter[int]) -> None:
    """Take a norm, an addition and an activation into the chain, as far as they follow."""
    if (after := readers.get(chain.output)) and _is_constant_norm(after, uses):
        chain.norm = after
    if (after := readers.get(chain.output)) and _can_pool_first(after, chain):
        chain.pool = after
        return
    if (after := readers.get(chain.output)) and _can_add(after, chain, graph):
        chain.addition = after
    if (after := readers.get(chain.output)) and find_activation(after):
        chain.activation = after


def _find_before(convolution: Step, makers: dict[int, Step], readers: dict[int, Step]) -> tuple[Step, Step] | None:
    """The two steps before a convolution of 1x1, if the second is a ReLU and nothing else reads what they give."""
    relu = makers.get(convolution.inputs[0])
    if relu is None or relu.name != "relu" or not is_matrix_product(convolution.args):
        return None
    norm = makers.get(relu.inputs[0])
    alone = readers.get(relu.outputs[0]) is convolution and readers.get(relu.inputs[0]) is relu
    return (norm, relu) if norm and alone else None


def _makes_memory(step: Step | None) -> bool:
    """Whether a step joins several tensors, and so makes memory of its own that nothing before it looks at."""
    return step is not None and step.name == "cat" and len(step.inputs) > 1


def _can_pack(step: Step, graph: Graph) -> bool:
    """Whether a step is a convolution of maps with constant weights, which oneDNN can run."""
    weight = step.args.get("weight")
    if step.name != "convolution" or step.args["transposed"] or not isinstance(weight, Tensor) or weight.dim() != 4:
        return False
    constant = not isinstance(step.args["bias"], Ref) and len(step.inputs) == 1
    known = graph.shapes[step.inputs[0]] is not None
    return constant and known and weight.dtype == float32 and weight.device.type == "cpu" and not weight.is_mkldnn


def _is_constant_norm(step: Step, uses: Counter[int]) -> bool:
    """Whether a step is a BatchNorm by constant running statistics, of which only the first output is used."""
    if step.name not in _NORMS:
        return False
    statistics = all(isinstance(step.args[name], Tensor) for name in ("running_mean", "running_var"))
    weights = not any(isinstance(step.args[name], Ref) for name in ("weight", "bias"))
    return statistics and weights and not step.args.get("training") and not any(uses[v] for v in step.outputs[1:])


def _can_pool_first(step: Step, chain: Chain) -> bool:
    """Whether a step is a mean over places, and the kernel, of 1x1, can as well be applied to fewer places after it:

        mean(W x + b) = W mean(x) + b

    Not where padding is among what the mean is taken of, which has no b."""
    args = chain.convolution.args
    if step.name != "avg_pool2d" or not is_matrix_product(args) or max(args["stride"]) > 1:
        return False
    kind = find_neighbourhood(step.name, step.args)
    plain = not (step.args["ceil_mode"] or step.args["divisor_override"])
    return plain and kind is not None and not any(kind.padding) and prod(kind.stride) > 1


def _can_add(step: Step, chain: Chain, graph: Graph) -> bool:
    """Whether a step adds another value of the same shape, and the convolution can wait until that value is there.

    Packed, the convolution runs where the addition was. So what it reads must not be overwritten in the meantime. Nor
    may it be the value that is added: the kernel needs more of a value than the addition does, and in a plan a step
    reads a value in one way only."""
    others = {*step.inputs} - {chain.output}
    if step.name != "add" or step.args["alpha"] != 1 or len(others) != 1:
        return False
    other, reads = others.pop(), chain.convolution.inputs[0]
    start, end = chain.convolution.outputs[0], step.outputs[0]  # values are numbered as they are made
    meantime = (each for each in graph.steps if start < each.outputs[0] < end)
    waits = other != reads and all(each.changes != reads for each in meantime)
    return waits and graph.shapes[other] == graph.shapes[chain.output] is not None
