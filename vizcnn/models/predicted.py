"""Predicted: the target of an image for which none is given is what the network itself answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vizcnn.errors import TargetError
from vizcnn.models.detection import choose_most_confident, is_detections
from vizcnn.models.functions import OUTPUT, RAW, Activations
from vizcnn.models.head import Head
from vizcnn.models.model import Model
from vizcnn.models.outputs import Unsettled
from vizcnn.models.segmentation import choose_largest, find_predicted
from vizcnn.models.targets import Target, is_map, target
from vizcnn.models.two_classes import predict_side, tells_two_apart


def predict_targets(model: Model, activations: Activations, images: int, head: Head) -> list[Target]:
    """For each of so many images the class with the largest output; where the output is a map for each class, the one
    that most pixels are predicted as, background aside; of a detector, the box of which it is most sure.

    Raises TargetError where the network answers otherwise, and NotInImage for the first image with no such thing."""
    output, raw = activations[OUTPUT], activations[RAW]

    def choose(name: str | int, own: Activations) -> Target:
        """The target of this name for one image, of which this is the network's answer."""
        return target(name).resolved(model).with_head(head).choose(own, 1, head, model.class_name)[0]

    if is_detections(raw):
        labels = choose_most_confident(raw, images)
        return [choose(f"#{label}#0", {RAW: raw[i : i + 1]}) for i, label in enumerate(labels)]
    if is_map(output):
        named = _name_largest(model, output, head)
        return [choose(name, {OUTPUT: output[i : i + 1]}) for i, name in enumerate(named)]
    classes = _predict_classes(model, output, head)
    different = {one: target(one).resolved(model).with_head(head) for one in classes}
    return [different[one] for one in classes]


def _name_largest(model: Model, maps: Tensor, head: Head) -> Sequence[int | str]:
    """For each image of maps (N, K, H, W) the class of most pixels; of one map for two classes, one of these."""
    if not tells_two_apart(model):
        return choose_largest(maps, head, model.class_name)
    predicted = find_predicted(maps, 0, head)  # (N, H, W), the second class's
    two = torch.stack([~predicted, predicted], 1).to(maps.dtype)  # (N, 2, H, W)
    assert model.labels is not None
    return [(f"={model.labels[0]}", "#0")[side] for side in choose_largest(two, "logits", model.class_name)]


def _predict_classes(model: Model, output: Tensor | Unsettled, head: Head) -> Sequence[int | str]:
    """For each image the class with the largest output, or the class that the only output tells. Raises TargetError
    where the output is not (N, classes)."""
    if isinstance(output, Unsettled):
        raise TargetError(f"there is no predicted class: {output.reason}")
    if output.dim() == 2 and output.shape[1] == 1:
        return predict_side(model, output, head) if len(model.labels or ()) == 2 else [0] * len(output)
    if output.dim() != 2 or not output.shape[1]:
        raise TargetError(
            f"the network's output is {tuple(output.shape)}, not (N, classes), so there is no predicted class. Give a "
            "target"
        )
    classes: list[int] = output.argmax(1).tolist()
    return classes
