"""The question that an explanation answers: why this class, rather than the best of the others?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vizcnn.errors import TargetError, UnsuitableNetwork
from vizcnn.evaluation.contrast import choose_contrast
from vizcnn.models.functions import OUTPUT
from vizcnn.models.head import to_probabilities
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import Target
from vizcnn.models.terms import Unit
from vizcnn.probing.subject import Subject
from vizcnn.results import Answer

_BEST = 5  # answers that are listed
_REMEDY = "Ask occlusion, saliency or rise for a map of a target of it: vizcnn occlusion IMAGE -t TARGET"


@dataclass(frozen=True)
class Question:
    """What is asked of one image.

    subject: of one image and one target. image: (C, H, W) in [0, 1]. output: the network's (K,). answer, rival: the
    targets that are compared. contrast: a class that the network did not choose, or why there is none.
    best: the top answers. asked, rival_answer: those of the two targets."""

    subject: Subject
    image: Tensor
    output: Tensor
    answer: Target
    rival: Target
    contrast: Target | str
    best: tuple[Answer, ...]
    asked: Answer
    rival_answer: Answer

    @property
    def model(self) -> Model:
        return self.subject.model

    @property
    def score(self) -> float:
        """Of the answer."""
        return float(self.subject.scores[0, 0])


def ask(subject: Subject) -> Question:
    """The question about the one image of a subject. Raises UnsuitableNetwork, TargetError."""
    output, (target, *others) = subject.output, subject.targets[0]
    refuse_no_classifier(subject.model, output)
    assert output is not None
    if others:
        raise TargetError(f"explain is about one target, got {', '.join(map(str, subject.targets[0]))}. Ask for each")
    number = _find_class(target)
    row = output[0].detach().float().cpu()  # (K,)
    order = [i for i in row.argsort(descending=True, stable=True).tolist() if i != number]
    ((weight, unit),) = target.terms
    assert isinstance(unit, Unit)
    other = replace(unit, channel=order[0], label=subject.model.class_name(order[0]))
    rival = Target(((weight, other),)).resolved(subject.model).with_head(subject.head)
    contrast = choose_contrast(subject.model, target, row)
    best = row.argsort(descending=True, stable=True)[:_BEST].tolist()
    return Question(
        subject,
        subject.inputs[0],
        row,
        target,
        rival,
        contrast if isinstance(contrast, str) else contrast.with_head(subject.head),
        tuple(name_answer(subject, row, i) for i in best),
        name_answer(subject, row, number),
        name_answer(subject, row, order[0]),
    )


def name_answer(subject: Subject, output: Tensor, number: int) -> Answer:
    """A class of an output (K,), with its score and, where that is known, its probability."""
    share = None if subject.head == "scores" else float(to_probabilities(output[None], subject.head)[0, number])
    return Answer(number, subject.model.class_name(number), float(output[number]), share)


@torch.no_grad()
def refuse_other_networks(model: Model) -> None:
    """Raise UnsuitableNetwork for a network that is no classifier, by its answer to a grey image."""
    refuse_no_classifier(model, read_activations(model, model.grey(), [OUTPUT])[OUTPUT])


def refuse_no_classifier(model: Model, output: object) -> None:
    """Raise UnsuitableNetwork unless the output is one number for each of at least two classes, (N, K)."""
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] >= 2:
        return
    got = f"an output {tuple(output.shape)}" if isinstance(output, Tensor) else "no single tensor"
    raise UnsuitableNetwork(
        f"explain compares the answers of a classifier, one number for each of at least two classes, and {model.name} "
        f"gives {got}. {_REMEDY}"
    )


def _find_class(target: Target) -> int:
    """The number of the class that a target is. Raises TargetError."""
    ((weight, unit), *others) = target.terms
    if others or weight != 1 or not isinstance(unit, Unit) or unit.layer or unit.has_place:
        raise TargetError(f"explain is about a class of the network's output, got {target}. Name a class, or none")
    return int(unit.channel)
