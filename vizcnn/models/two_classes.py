"""Two classes from one number: a network with a single output that tells two classes apart.

Its number z is the second class's, the positive one; the first class's is -z, and where z is a probability, 1 - z.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from vizcnn.errors import NetworkError, TargetError
from vizcnn.models.head import Head, to_probabilities
from vizcnn.models.model import Model, find_class_index
from vizcnn.models.outputs import find_output

_SIDES = ("negative", "positive")
_BORDERS: dict[Head, float] = {"logits": 0.0, "sigmoid-logits": 0.0, "sigmoid": 0.5}
"""By what the number is: above this, the second class is predicted."""

_FOUND = WeakIdKeyDictionary()  # of a Model: whether it is such a one


def tells_two_apart(model: Model) -> bool:
    """Whether a Model has two labels and one output. A run of a grey image tells, where there are two labels."""
    if model.labels is None or len(model.labels) != 2:
        return False
    if model not in _FOUND:
        try:
            with model.borrowed(), torch.no_grad():
                output = find_output(model(model.grey()), model.output, 1)
        except NetworkError:  # whoever runs it on images says so
            return False
        _FOUND[model] = isinstance(output, Tensor) and output.shape[1] == 1
    return bool(_FOUND[model])


def find_side(channel: int | str, model: Model, *, as_text: bool) -> int:
    """Which of the two classes is meant, 0 or 1, by name, by side (`positive`, `negative`) or by the number of the only
    output, 0, which is the second's.

    as_text: a number was given as a text, which may also be a name. Raises TargetError."""
    labels, name = model.labels or (), str(channel)
    is_number = not isinstance(channel, str)
    if is_number and as_text and name in labels:
        raise TargetError(
            f"{name!r} names a class of {model.name}, which has one output, number 0, for two classes. Give '#0' for "
            f"this output, which is {labels[1]}'s, or '={name}' for the class of this name"
        )
    if is_number and channel != 0:
        raise TargetError(
            f"{model.name} has one output, number 0, for its classes {labels[0]} and {labels[1]}, got {name}. Give 0, "
            "or a name"
        )
    if is_number:
        return 1
    if name.lower() in _SIDES and name.lower() not in {label.lower() for label in labels}:
        return _SIDES.index(name.lower())
    return find_class_index(name, labels, model.name)


def negate(values: Tensor, head: Head | None, *, probability: bool) -> Tensor:
    """The first class's numbers, from those of the second."""
    return 1 - values if probability or head == "sigmoid" else -values


def predict_side(model: Model, output: Tensor, head: Head) -> list[str]:
    """For each image the class that one number (N, 1) predicts, as a target's text. Raises TargetError."""
    if head not in _BORDERS:
        raise TargetError(
            f"{model.name} gives one number for two classes, and nothing shows whether it is a logit or a probability. "
            "Say Model(head=...), or give a target"
        )
    assert model.labels is not None
    return ["#0" if value > _BORDERS[head] else f"={model.labels[0]}" for value in output[:, 0].tolist()]


def expand_probabilities(output: Tensor, head: Head, classes: int) -> Tensor:
    """The probabilities (N, K) of so many classes; of two from the one of the second."""
    shares = to_probabilities(output, head)
    return torch.cat([1 - shares, shares], 1) if classes == 2 and output.shape[1] == 1 else shares
