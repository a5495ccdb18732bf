"""Loading: a Model from what a person types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from os.path import isfile
from pathlib import Path

import torch

from vizcnn.errors import ModelNotFound, ParameterError, VizcnnError, describe_address, did_you_mean
from vizcnn.models.checkpoints import NO_LAYERS, is_torchscript
from vizcnn.models.given import Given, read_given
from vizcnn.models.model import Model
from vizcnn.models.sources.bundled import find_card, list_names, load_bundled, load_own
from vizcnn.models.sources.configured import FILES, Configured, list_configured
from vizcnn.models.sources.factory import load_factory
from vizcnn.models.sources.huggingface import load_huggingface
from vizcnn.models.sources.tags import ends_as_checkpoint
from vizcnn.models.sources.timm import load_timm
from vizcnn.models.sources.torchvision import list_tasks, load_torchvision
from vizcnn.models.threads import keep_random_state
from vizcnn.process import keep_environment


def load(
    spec: str,
    *,
    device: str | torch.device = "cpu",
    weights: bool = True,
    input_size: int | str | tuple[int, int] | None = None,
    mean: Sequence[float] | str | None = None,
    std: Sequence[float] | str | None = None,
    class_names: Sequence[str] | Mapping[int, str] | str | PathLike[str] | None = None,
    input_channels: int | None = None,
    classes: int | None = None,
    trust_pickle: bool = False,
    white: float | None = None,
    display: int | Sequence[int] | None = None,
) -> Model:
    """Load a Model by its name.

    spec:
        `tiny`, `eleven`, `lecture`         a bundled network
        `simple`, `simple@initial`          the same, after its training and before
        `lecture@weights.safetensors`       the same with other weights, for as many classes as these tell
        `own.safetensors`                   a file that `vizcnn.zoo.train_own` has left: network, classes and input
        `resnet18`, `resnet18@WEIGHTS_TAG`  a network of torchvision with its weights; default weights without a tag.
                                            Also for segmentation (`lraspp_mobilenet_v3_large`) and detection
        `resnet18@random`                   a network of torchvision with random weights, always the same ones
        `resnet18@weights.pth`              an architecture of torchvision with a checkpoint (.safetensors, .pth)
        `timm:NAME`, `timm:NAME@random`, `timm:NAME@weights.pth`
                                            the same of timm (extra `timm`)
        `hf:NAME`, `hf:FOLDER`              a network of transformers, from its hub or a folder (extra `hf`)
        `package.module:factory`            a function of no arguments that returns a vizcnn.Model; or an nn.Module,
                                            with `input_size`
        `./file.py:factory`                 the same, from a file
        `...:factory@weights.pth`           a factory's network with a checkpoint loaded into it
        `resnet18@runs.pth#model_ema`       one of several sets of weights in a file, where more than one fits
        NAME, NAME@weights.pth              what `vizcnn.toml` or `pyproject.toml` calls so, of this folder or above
    device: where the network and its inputs live.
    weights: False where the architecture is enough: a name of torchvision, timm or transformers without a tag is then
        read as NAME@random, and no weights are downloaded.
    input_size, mean, std: in place of the network's own input contract: a side in px or (height, width); numbers per
        channel for pixels in [0, 1]. `resize`, before the cut, is scaled with the size.
    class_names: of each output, in their order: a list, a mapping such as `id2label`, or a file with a name on each
        line, a JSON list or such a mapping.
    input_channels, classes: how many an architecture of torchvision, timm or transformers is built for; the weights of
        a file tell both.
    trust_pickle: read checkpoints that hold objects of any class, or a whole pickled network, whose weights are taken.
        Reading such a file runs the code that it names: for files whose makers you trust.
    white, display: of the model's input contract, in place of its own, see `vizcnn.models.contract.InputContract`.

    Prefixes of a checkpoint's names, such as `module.`, `_orig_mod.` or `model.`, are taken off where the network's own
    names are found behind them, and for networks by name the weights tell the numbers of classes and of input channels.
    `Model.notes` says in a line what was taken off, inferred and ignored. Names that are missing, or of which the
    network has no such layer, are an error that lists them.
    The network is always in eval mode, also where a factory left it in training mode: `model(images)` is then the
    answer that probes explain. To train it further, call `model.network.train()`.
    Without trust_pickle, pickled checkpoints are read as weights only, so that loading one runs no code from it.
    Raises ModelNotFound, ParameterError and WeightsError.

        >>> import vizcnn
        >>> vizcnn.load("tiny").input.size
        (64, 64)
        >>> vizcnn.load("resnet18@random", input_size=128, classes=3, class_names=["cat", "dog", "fox"]).labels
        ('cat', 'dog', 'fox')
    """
    given = read_given(
        input_size=input_size,
        mean=mean,
        std=std,
        class_names=class_names,
        input_channels=input_channels,
        classes=classes,
        trust_pickle=trust_pickle,
        white=white,
        display=display,
    )
    with keep_random_state(), keep_environment():  # building a network draws random weights
        model = _load(spec, "" if weights else "random", given)
    model.trusts_pickle = trust_pickle
    model.network.eval()
    try:
        model.network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return model


def _load(spec: str, default_tag: str, given: Given) -> Model:
    for part in spec.removeprefix("hf:").partition("@")[::2]:
        if address := describe_address(part):
            raise ModelNotFound(address)
    name, _, tag = spec.partition("@")
    configured, problems = list_configured()
    chosen = next((each for each in configured if each.name == name), None)
    if chosen:
        return _load_configured(chosen, tag, default_tag, given)
    if ":" not in spec and name not in list_names() and name not in list_tasks() and not find_card(spec):
        raise ModelNotFound(" ".join([_explain_unknown(name, [each.name for each in configured]), *problems]))
    model = _load_source(spec, default_tag, given)
    given.apply(model)
    return model


def _load_configured(configured: Configured, tag: str, default_tag: str, given: Given) -> Model:
    """The network that a file names. tag: weights in place of those that the file names."""
    if configured.name in list_names() or configured.name in list_tasks():
        raise ModelNotFound(
            f"{configured.where} has the name of a network that comes with vizcnn or torchvision, so it is not clear "
            "which is meant. Call it something else there"
        )
    given, spec = given.over(configured.read_given()), configured.write_spec(tag)
    try:
        model = _load_source(spec, default_tag, given, configured.folder)
        given.apply(model)
    except VizcnnError as error:
        error.add_context(configured.where)
        raise
    model.name = f"{configured.name}@{Path(tag).name}" if tag else configured.name
    return model


def _load_source(spec: str, default_tag: str, given: Given, folder: Path | None = None) -> Model:
    """The network of a spec that no file names. folder: where modules of factories are looked for."""
    if card := find_card(spec):
        given.refuse_classes(spec)
        return load_own(spec, card, given)
    kind, _, rest = spec.partition(":")
    if kind == "hf":
        return load_huggingface(rest, default_tag, given)
    file, ending, rest = spec.rpartition(".py:")  # a path may hold an @ of its own
    name, _, tag = rest.partition("@")
    if kind == "timm" and not ending:
        return load_timm(name.removeprefix("timm:"), tag or default_tag, given)
    if ":" in name or ending:
        given.refuse_classes(file + ending + name)
        return load_factory(file + ending + name, tag, given, folder)
    if name in list_names():
        given.refuse_classes(name)
        return load_bundled(name, tag, given)
    if name not in list_tasks():
        raise ModelNotFound(_explain_unknown(name, []))
    return load_torchvision(name, tag or default_tag, given)


def _explain_unknown(name: str, configured: list[str]) -> str:
    if Path(name).suffix == ".pt2" or is_torchscript(name):
        return f"{name} cannot be probed: {NO_LAYERS}"
    if Path(name).suffix == ".safetensors" and not isfile(name):
        return f"no weights file {name}"
    if ends_as_checkpoint(name):
        return f"{name} holds weights, not a network. Name the architecture too: ARCHITECTURE@{name}"
    bundled, near = ", ".join(list_names()), did_you_mean(name, [*configured, *list_names(), *list_tasks()])
    own = f"; of {' and '.join(FILES)}: {', '.join(configured)}" if configured else ""
    return f"no model named {name!r}.{near} Bundled: {bundled}{own}; or a name of torchvision, timm:NAME, hf:NAME"
