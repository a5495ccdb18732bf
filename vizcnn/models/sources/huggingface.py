"""Networks of transformers, from its hub or a folder, with what their image processor does to photographs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from torch import nn

from vizcnn.errors import ModelNotFound, ParameterError, WeightsError
from vizcnn.models._torchvision import import_models
from vizcnn.models.architectures import Architecture, build_filled
from vizcnn.models.checkpoints import take_first_line
from vizcnn.models.contract import InputContract
from vizcnn.models.given import Given
from vizcnn.models.model import Model
from vizcnn.models.sources.downloads import describe_cache, explain_failure, fetch
from vizcnn.models.sources.processors import find_contract
from vizcnn.models.sources.tags import is_file
from vizcnn.models.sources.timm import load_timm_from_hub
from vizcnn.models.sources.torchvision import (
    note_unknown_normalisation,
    refuse_other_than_filled,
    refuse_other_than_published,
)
from vizcnn.models.threads import seed_random

_PROCESSOR = "preprocessor_config.json"
_SHOWN = 3  # weights of a list, by name


def load_huggingface(rest: str, default_tag: str, given: Given) -> Model:
    """A classifier or a network for semantic segmentation of transformers.

    rest: what follows `hf:`: a folder that save_pretrained has written, or a name of the hub, and behind an @ a file of
    other weights, or `random`. Names `timm/...` are timm's. Raises ModelNotFound, ParameterError, WeightsError.
    """
    name, _, tag = (rest, "", "") if isdir(rest) or "@" not in rest else rest.rpartition("@")
    if name.startswith("timm/") and not isdir(name):
        return load_timm_from_hub(name, given)
    transformers, tag, spec = _import_transformers(f"hf:{rest}"), tag or default_tag, f"hf:{name}"
    if tag and tag != "random" and not is_file(tag):
        raise WeightsError(f"{spec} has no weights tagged {tag!r}. After the @ stands a file of weights or random")
    with _keep_quiet(transformers):
        config = _read_config(transformers, name)
        kind = _choose_kind(transformers, config, spec)
        model = _load(transformers, kind, config, name, tag, given)
    note_unknown_normalisation(model, given)
    return model


def _load(transformers: Any, kind: Any, config: Any, name: str, tag: str, given: Given) -> Model:
    spec = f"hf:{name}"
    notes: list[str] = []
    channels: Any = getattr(config, "num_channels", 3)
    classes = config.num_labels
    labels, unnamed = _find_labels(config, spec)
    contract, said = _find_contract(transformers, name, config, given)
    if not tag:
        refuse_other_than_published(spec, given, channels, classes)
        network, notes = _load_published(kind, config, name)
    else:
        if given.input_size is not None and hasattr(config, "image_size"):
            height, width = given.input_size
            config.image_size = height if height == width else [height, width]

        def build(classes: int, channels: int) -> nn.Module:
            config.num_labels, config.num_channels = classes, channels
            network: nn.Module = kind.from_config(config)
            return network

        usual = given.classes or classes, given.input_channels or channels
        spec = f"{spec}@{Path(tag).name}"
        if tag == "random":
            with seed_random(0):
                network = build(*usual)
        else:
            filled = build_filled(Architecture([build], *usual), tag, spec, trust_pickle=given.trust_pickle)
            refuse_other_than_filled(spec, given, filled)
            network, usual = filled.network, (filled.classes, filled.channels)
            said += filled.notes
        channels = usual[1]
    rgb = channels == 3
    model = Model(
        network.float(),
        size=contract.size,
        channels=channels,
        mean=contract.mean if rgb else None,
        std=contract.std if rgb else None,
        fit=contract.fit,
        resize=contract.resize,
        interpolation=contract.interpolation,
        labels=labels if config.num_labels == classes else None,
        head="sigmoid-logits" if config.problem_type == "multi_label_classification" else "logits",
        output="logits",
        name=spec,
    )
    model.notes += (*said, *(unnamed if given.class_names is None else ()), *(f"{spec}: {note}" for note in notes))
    return model


def _import_transformers(wanted: str) -> Any:
    import_models()  # which transformers cannot import beside a torchvision without its compiled operators
    try:
        import transformers
    except ImportError as error:
        raise ModelNotFound(f"{wanted} needs transformers ({error}). Install it: pip install 'vizcnn[hf]'") from error
    return transformers


@contextmanager
def _keep_quiet(transformers: Any) -> Iterator[None]:
    """Without messages and progress bars of transformers: what matters of them is said in our own lines."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _read_config(transformers: Any, name: str) -> Any:
    """The configuration of a network. Raises ModelNotFound."""
    folder = Path(name)
    if isdir(folder):
        _refuse_other_folders(folder)
    elif name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ModelNotFound(f"hf:{name}: no folder {name}. Name a folder with a config.json, or a network of the hub")
    try:
        return fetch(lambda: transformers.AutoConfig.from_pretrained(name, trust_remote_code=False))
    except Exception as error:  # OSError, ValueError, KeyError and what the hub's client raises
        if isdir(folder):
            raise ModelNotFound(f"hf:{name}: its config.json cannot be used: {take_first_line(error)}") from error
        raise ModelNotFound(
            f"hf:{name}: config.json of {name} is not in {describe_cache()}, no folder has this name, and it cannot be "
            f"downloaded ({explain_failure(error)}). Put config.json, preprocessor_config.json and model.safetensors "
            "into a folder, and load it as hf:FOLDER"
        ) from error


def _refuse_other_folders(folder: Path) -> None:
    """Raise ModelNotFound for a folder that transformers has not written."""
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelNotFound(
            f"hf:{folder}: there is no config.json in this folder. Name one that save_pretrained has written"
        ) from error
    except ValueError as error:
        raise ModelNotFound(f"hf:{folder}: its config.json is no JSON: {error}") from error
    if isinstance(facts, dict) and "architecture" in facts and "model_type" not in facts:
        raise ModelNotFound(
            f"hf:{folder} is a folder of timm. Load it as timm:{facts['architecture']}@{folder / 'model.safetensors'}"
        )


def _choose_kind(transformers: Any, config: Any, spec: str) -> Any:
    """The class of transformers that builds the network. Raises ModelNotFound."""
    named = (config.architectures or ["ForImageClassification"])[0]
    kinds = {
        "ForImageClassification": transformers.AutoModelForImageClassification,
        "ForSemanticSegmentation": transformers.AutoModelForSemanticSegmentation,
    }
    for ending, kind in kinds.items():
        if ending in named and type(config) in kind._model_mapping:
            return kind
    raise ModelNotFound(
        f"{spec} holds a {named}, and only image classifiers and networks for semantic segmentation are read. Wrap "
        "others: vizcnn.Model(network, size=...)"
    )


def _load_published(kind: Any, config: Any, name: str) -> tuple[nn.Module, list[str]]:
    """The network with the weights of the folder or the hub, and what is to be said of them."""
    try:
        network, found = fetch(lambda: kind.from_pretrained(name, config=config, output_loading_info=True))
    except Exception as error:
        place = "this folder" if isdir(name) else f"{describe_cache()}, or cannot be downloaded"
        raise WeightsError(
            f"hf:{name}: no weights that fit are in {place}: {take_first_line(error)}. Put model.safetensors into a "
            "folder beside its config.json, and load it as hf:FOLDER"
        ) from error
    if lacking := sorted(found["missing_keys"]):
        raise WeightsError(
            f"hf:{name}: the file of weights lacks {_list_some(lacking)}, which would be random. It is of another kind "
            "of network; load one that was trained for these classes"
        )
    left = sorted(found["unexpected_keys"])
    return network, [f"left over of the file of weights: {_list_some(left)}"] if left else []


def _list_some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _find_contract(transformers: Any, name: str, config: Any, given: Given) -> tuple[InputContract, tuple[str, ...]]:
    """The input contract of the network's image processor; without one, of what was given."""
    modern = int(transformers.__version__.partition(".")[0]) >= 5
    options = {"backend": "pil"} if modern else {"use_fast": False}  # which needs no torchvision

    def make() -> Any:
        return transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **options)

    try:
        processor = fetch(make)
    except Exception as error:
        if isfile(Path(name) / _PROCESSOR):
            raise ParameterError(
                f"hf:{name}: its image processor ({_PROCESSOR}) cannot be read: {take_first_line(error)}. Mend that "
                "file; or remove it, and give --input-size, --mean and --std"
            ) from error
        if given.input_size is None:
            raise ParameterError(
                f"hf:{name} comes without an image processor ({_PROCESSOR}), so nothing says how "
                "photographs become inputs. Give --input-size 224, --mean and --std, in Python input_size=224 and so on"
            ) from error
        unsaid = (
            ()
            if given.mean or given.std
            else (f"hf:{name}: pixels in [0, 1] go in as they are: nothing says mean and std",)
        )
        return InputContract(size=given.input_size), unsaid
    side = getattr(config, "image_size", None)
    usual = (side, side) if isinstance(side, int) else tuple(side) if side else None
    try:
        return find_contract(processor, f"hf:{name}", given.input_size or usual)
    except (ParameterError, MemoryError):
        raise
    except Exception as error:  # of the processor
        raise ParameterError(f"hf:{name}: its image processor fails: {take_first_line(error)}") from error


def _find_labels(config: Any, spec: str) -> tuple[list[str] | None, list[str]]:
    """The names of the classes, and what is to be said of them. None where they are the numbers that transformers fills
    in, or not those of the outputs."""
    names = config.id2label
    if sorted(names) != [*range(len(names))]:
        return None, [f"{spec}: id2label does not number its classes from 0 without gaps, so that they have no names"]
    found = [str(names[index]) for index in range(len(names))]
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(found)) else found, []
