"""Networks of timm by their names, with the preprocessing and the labels that timm has for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from math import floor
from pathlib import Path
from typing import Any

from torch import nn

from vizcnn.errors import ModelNotFound, WeightsError, did_you_mean
from vizcnn.models._torchvision import import_models
from vizcnn.models.architectures import Architecture, build_filled
from vizcnn.models.given import Given
from vizcnn.models.model import Model
from vizcnn.models.sources.downloads import describe_cache, explain_failure, fetch
from vizcnn.models.sources.tags import is_file
from vizcnn.models.sources.torchvision import (
    note_unknown_normalisation,
    refuse_other_than_filled,
    refuse_other_than_published,
)
from vizcnn.models.threads import seed_random


def load_timm(name: str, tag: str, given: Given) -> Model:
    """A network of timm with its published weights, others from a file, or random ones.

    name: as timm has it, with or without a tag of weights: `resnet26d`, `resnet50.a1_in1k`. tag: a file of weights,
    `random`, or nothing for timm's own. Raises ModelNotFound, ParameterError, WeightsError.
    """
    timm = import_timm(f"timm:{name}")
    facts = _find_facts(timm, name)
    spec = f"timm:{name}"
    usual = facts.num_classes, facts.input_size[0]
    build = partial(_build, timm, name, facts, given)
    if tag == "random":
        with seed_random(0):
            network = build(given.classes or usual[0], given.input_channels or usual[1])
        return _wrap(network, f"{spec}@random", given)
    if is_file(tag):
        spec = f"{spec}@{Path(tag).name}"
        architecture = Architecture([build], given.classes or usual[0] or 1000, given.input_channels or usual[1])
        filled = build_filled(architecture, tag, spec, trust_pickle=given.trust_pickle)
        refuse_other_than_filled(spec, given, filled)
        model = _wrap(filled.network, spec, given, filled.channels)
        model.notes = (*filled.notes, *model.notes)
        return model
    if tag:
        raise WeightsError(
            f"{spec} has no weights tagged {tag!r}: timm writes the tag behind a dot, as in timm:resnet50.a1_in1k. "
            "After the @ stands a file or random"
        )
    return _wrap(_load_published(timm, name, facts, given), f"timm:{_name_weights(name, facts)}", given)


def load_timm_from_hub(name: str, given: Given) -> Model:
    """A network of timm that a hub keeps, such as `timm/resnet18.a1_in1k`, with the configuration found there."""
    timm, spec = import_timm(f"hf:{name}"), f"hf:{name}"

    def load() -> nn.Module:
        network: nn.Module = timm.create_model(f"hf-hub:{name}", pretrained=True)
        return network

    try:
        network = fetch(load)
    except Exception as error:
        raise WeightsError(
            f"{spec}: config.json and model.safetensors of {name} are not in {describe_cache()}, and cannot be "
            f"downloaded ({explain_failure(error)}). Fetch model.safetensors elsewhere, and load it as "
            f"timm:{name.rpartition('/')[2]}@FILE"
        ) from error
    refuse_other_than_published(spec, given, *_count(network))
    return _wrap(network, spec, given)


def import_timm(wanted: str) -> Any:
    """timm; ModelNotFound where it is not installed. wanted: the spec that needs it, for the message."""
    import_models()  # beside a torchvision without its compiled operators, timm's own import would fail
    try:
        import timm
    except ImportError as error:
        raise ModelNotFound(f"{wanted} needs timm ({error}). Install it: pip install 'vizcnn[timm]'") from error
    return timm


def _find_facts(timm: Any, name: str) -> Any:
    """What timm has written down of a network's weights, its PretrainedCfg. Raises ModelNotFound."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelNotFound(
            f"timm {timm.__version__} has no network named {architecture!r}."
            f"{did_you_mean(architecture, timm.list_models())} See: timm.list_models()"
        )
    tags = [each.partition(".")[2] for each in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ModelNotFound(
            f"timm {timm.__version__} has no weights tagged {tag!r} for {architecture}.{did_you_mean(tag, tags)} "
            f"There are: {', '.join(tags) or 'none'}"
        )
    return timm.models.get_pretrained_cfg(name)


def _build(timm: Any, name: str, facts: Any, given: Given, classes: int, channels: int, **more: Any) -> nn.Module:
    """The architecture for what was given, with random weights unless more options say otherwise."""
    if given.input_size is not None and facts.fixed_input_size:  # such as of ViT, whose weights depend on it
        more["img_size"] = given.input_size
    network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **more)
    return network


def _load_published(timm: Any, name: str, facts: Any, given: Given) -> nn.Module:
    spec = f"timm:{name}"
    if not (facts.hf_hub_id or facts.url or facts.file):
        raise WeightsError(f"timm has no weights for {name}. Load yours as {spec}@FILE, or use {spec}@random")
    channels, classes = facts.input_size[0], facts.num_classes
    refuse_other_than_published(spec, given, channels, classes)
    try:
        return fetch(lambda: _build(timm, name, facts, given, classes, channels, pretrained=True))
    except Exception as error:  # of whichever library has asked for them
        where = f"{facts.hf_hub_filename or 'model.safetensors'} of {facts.hf_hub_id}" if facts.hf_hub_id else facts.url
        raise WeightsError(
            f"{spec}: its weights ({where}) are not in {describe_cache()}, and cannot be downloaded "
            f"({explain_failure(error)}). Fetch that file elsewhere, and load it as {spec}@FILE; or use {spec}@random"
        ) from error


def _name_weights(name: str, facts: Any) -> str:
    return name if "." in name or not facts.tag else f"{name}.{facts.tag}"


def _count(network: nn.Module) -> tuple[int, int]:
    """The numbers of input channels and of classes that a network of timm was made for."""
    facts: Any = network.pretrained_cfg
    return facts["input_size"][0], int(getattr(network, "num_classes", facts["num_classes"]))


def _wrap(network: nn.Module, spec: str, given: Given, built_for: int | None = None) -> Model:
    """A network with the preprocessing that timm has for it. built_for: the number of channels, where that is known."""
    from timm.data import resolve_model_data_config

    data, classes = resolve_model_data_config(network), _count(network)[1]
    channels: Any = built_for or given.input_channels or data["input_size"][0]
    rgb = channels == len(data["mean"])
    size = given.input_size or tuple(data["input_size"][1:])
    fit, notes = _find_fit(data, size)
    known = data["interpolation"] in ("bilinear", "bicubic")
    model = Model(
        network,
        size=size,
        channels=channels,
        mean=data["mean"] if rgb else None,
        std=data["std"] if rgb else None,
        interpolation=data["interpolation"] if known else "bicubic",
        labels=_find_labels(network, classes),
        head="logits" if classes else "scores",
        name=spec,
        **fit,
    )
    if not known:
        notes.append(f"timm scales its images by {data['interpolation']} interpolation, here they are by bicubic")
    model.notes += tuple(f"{spec}: {note}" for note in notes)
    note_unknown_normalisation(model, given)
    return model


def _find_fit(data: Mapping[str, Any], size: tuple[int, int]) -> tuple[dict[str, Any], list[str]]:
    """How a photograph is brought to the input's size, and what timm does otherwise."""
    share = data["crop_pct"]
    if data["crop_mode"] == "squash":
        other = f"timm then cuts off the border and leaves {share:.0%} of each side, here nothing is cut"
        return {"fit": "stretch"}, [other] if share < 1 else []
    if data["crop_mode"] == "border":
        return {}, ["timm shows the whole photograph between borders, here its centre is cut out"]
    if size[0] == size[1]:
        return {"resize": floor(size[0] / share)}, []
    other = f"timm leaves {share:.0%} of a photograph, here the largest part of the input's shape is cut out"
    return {}, [other] if share < 1 else []


def _find_labels(network: nn.Module, classes: int) -> list[str] | None:
    """The names of the classes: those of its configuration, or of the ImageNet that has as many."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    facts: Any = network.pretrained_cfg
    own = facts.get("label_names")
    if own and len(own) == classes:
        return list(own)
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    whole = [info.index_to_description(index) for index in range(classes)]
    short = [text.partition(",")[0] for text in whole]  # `tabby` of `tabby, tabby cat`
    count = Counter(short)
    return [text if count[name] > 1 else name for text, name in zip(whole, short, strict=True)]
