"""Networks of torchvision by their names: classifiers, segmentation and detection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizcnn.errors import ModelNotFound, ParameterError, WeightsError, did_you_mean
from vizcnn.models import _torchvision
from vizcnn.models.architectures import Architecture, Filled, build_filled
from vizcnn.models.checkpoints import CHECKPOINTS, take_first_line
from vizcnn.models.given import Given
from vizcnn.models.model import Model
from vizcnn.models.sources.downloads import show_download
from vizcnn.models.sources.tags import is_file
from vizcnn.models.threads import seed_random

Task = Literal["classification", "segmentation", "detection"]


def list_tasks() -> dict[str, Task]:
    """The names that torchvision has, each with what its network does."""
    library = _torchvision.import_models()
    tasks: dict[Task, Any] = {
        "classification": library,
        "segmentation": library.segmentation,
        "detection": library.detection,
    }
    return {name: task for task, module in tasks.items() for name in library.list_models(module=module)}


@dataclass(frozen=True)
class _Source:
    """An architecture of torchvision with what it is built for. weights: published ones, whose preprocessing it has."""

    name: str
    task: Task
    weights: Any
    given: Given

    def build(self, classes: int, channels: int, *, auxiliary: bool = True) -> nn.Module:
        """The architecture, with weights drawn at random. auxiliary: whether with auxiliary heads, if it has any."""
        options = _choose_options(self, channels, auxiliary)
        network: nn.Module = _torchvision.import_models().get_model(
            self.name, weights=None, num_classes=classes, **options
        )
        if channels != 3:
            _replace_first_convolution(network, channels)
        return network

    @property
    def labels(self) -> list[str]:
        return list(self.weights.meta["categories"])


def load_torchvision(name: str, tag: str, given: Given) -> Model:
    """A network of torchvision with its published weights, others from a file, or random ones.

    name: of `list_tasks()`. tag: a name of weights, a file, `random`, or nothing for the default weights.
    Raises ModelNotFound, ParameterError, WeightsError.
    """
    library, task = _torchvision.import_models(), list_tasks()[name]
    if task == "detection" and not hasattr(torch.ops.torchvision, "nms"):
        raise ModelNotFound(
            f"{name} finds boxes, and the compiled operators of this torchvision (nms) cannot be loaded beside torch "
            f"{torch.__version__}. Install the torchvision that belongs to it"
        )
    tags = list(library.get_model_weights(name))
    known = {weights.name: weights for weights in tags}
    source = _Source(name, task, known.get(tag, library.get_model_weights(name).DEFAULT if not tag else tags[0]), given)
    if task == "detection" and given.input_channels not in (None, 3):
        raise ParameterError(f"{name} takes 3 channels: it normalises them itself. Leave input-channels out")
    if tag == "random":
        with seed_random(0):
            classes, channels = given.classes or len(source.labels), given.input_channels or 3
            network = source.build(classes, channels)
        return _wrap(source, network, f"{name}@random", classes, channels)
    if is_file(tag):
        return _load_file(source, tag)
    if tag and tag not in known:
        raise WeightsError(
            f"{name} has no weights tagged {tag!r}.{did_you_mean(tag, known)} There are: {', '.join(known)}, random, "
            f"or a file ending in {', '.join(CHECKPOINTS)}"
        )
    refuse_other_than_published(name, given, 3, len(source.labels))
    _download(name, source.weights)
    network = library.get_model(name, weights=source.weights, progress=False)
    return _wrap(source, network, f"{name}@{source.weights.name}", len(source.labels), 3)


def refuse_other_than_published(name: str, given: Given, channels: int, classes: int) -> None:
    """Raise ParameterError where published weights are asked for, and another architecture than theirs is given."""
    weights, remedy = f"the published weights of {name}", f"Use {name}@FILE or {name}@random"
    given.refuse_other_shape(weights, channels, classes, remedy)


def refuse_other_than_filled(spec: str, given: Given, filled: Filled) -> None:
    """Raise ParameterError where the weights of a file tell other numbers than those that were given."""
    remedy = "Leave these out: the weights tell both"
    given.refuse_other_shape(f"the weights of {spec}", filled.channels, filled.classes, remedy)


def _download(name: str, weights: Any) -> None:
    """Download weights into torch's cache if they are not there, and check that they are nothing but weights."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = weights.url.rsplit("/", 1)[-1]
    try:
        with show_download():
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise WeightsError(
            f"{name}: weights {weights.name} are not on this machine and cannot be downloaded ({error}). "
            f"Expected the file {file} in {folder}. Put it there, or load any file as {name}@FILE, or use {name}@random"
        ) from error
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"{name}: {folder / file} cannot be read as weights: {take_first_line(error)}. Delete it"
        ) from error


def _choose_options(source: _Source, channels: int, auxiliary: bool) -> dict[str, Any]:
    """The options that some architectures need; the two Inceptions as torchvision passes them when it loads their
    weights, though the transform of their inputs is for three colours."""
    if source.name in ("googlenet", "inception_v3"):
        return {"aux_logits": auxiliary, "transform_input": channels == 3, "init_weights": False}
    if source.task == "classification":
        return {}
    options: dict[str, Any] = {"weights_backbone": None}  # which would be downloaded
    return {**options, "aux_loss": auxiliary} if _has_auxiliary(source) else options


def _has_auxiliary(source: _Source) -> bool:
    """Whether a network of this name comes with and without heads that matter in training alone."""
    return source.name in ("googlenet", "inception_v3") or source.name.startswith(("fcn", "deeplab"))


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Put a convolution of so many input channels in the place of the first, with weights drawn at random."""
    name, old = next((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d))
    parent, _, attribute = name.rpartition(".")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
        device=old.weight.device,
    )
    setattr(network.get_submodule(parent), attribute, new)


def _load_file(source: _Source, file: str) -> Model:
    given, spec = source.given, f"{source.name}@{Path(file).name}"
    heads = [True, False] if _has_auxiliary(source) else [True]
    architecture = Architecture(
        [partial(source.build, auxiliary=auxiliary) for auxiliary in heads],
        given.classes or len(source.labels),
        given.input_channels or 3,
    )
    filled = build_filled(architecture, file, spec, trust_pickle=given.trust_pickle)
    refuse_other_than_filled(spec, given, filled)
    model = _wrap(source, filled.network, spec, filled.classes, filled.channels)
    model.notes = (*filled.notes, *model.notes)
    return model


def _wrap(source: _Source, network: nn.Module, spec: str, classes: int, channels: Any) -> Model:
    """A network with the preprocessing of its published weights, and with their labels where it has as many classes."""
    labels = source.labels if classes == len(source.labels) else None
    if source.task == "detection":
        return _wrap_detector(network, labels, spec)
    preprocessing = source.weights.transforms()
    resize = preprocessing.resize_size[0]
    crop = resize if source.task == "segmentation" else preprocessing.crop_size[0]
    rgb = channels == 3
    model = Model(
        network,
        size=crop,
        channels=channels,
        mean=preprocessing.mean if rgb else None,
        std=preprocessing.std if rgb else None,
        resize=resize,
        interpolation="bicubic" if preprocessing.interpolation.value == "bicubic" else "bilinear",
        labels=labels,
        head="logits",
        output="out" if source.task == "segmentation" else None,
        name=spec,
    )
    note_unknown_normalisation(model, source.given)
    return model


def note_unknown_normalisation(model: Model, given: Given) -> None:
    """Say that pixels are not normalised where an architecture for RGB was built for other channels."""
    if model.input.channels != 3 and given.mean is None and given.std is None:
        model.notes += (f"{model.name}: mean and std are known for RGB only, so that its images stay in [0, 1]",)


def _wrap_detector(network: nn.Module, labels: list[str] | None, spec: str) -> Model:
    """A detector, which takes a list of images in [0, 1], and normalises and scales them itself."""
    transform: Any = network.transform
    fixed = transform.fixed_size  # of SSD, which distorts images to a square
    return Model(
        network,
        size=tuple(fixed) if fixed else transform.min_size[-1],
        fit="stretch" if fixed else "crop",
        labels=labels,
        forward=detect,
        name=spec,
    )


def detect(network: nn.Module, images: Tensor) -> Any:
    """What a detector of torchvision finds in each of the images (N, 3, H, W): a list of dictionaries."""
    return network([*images])
