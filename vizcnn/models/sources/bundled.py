"""The bundled networks, and files of weights that say of which bundled network they are.

Each bundled network is NAME.safetensors (and NAME.initial.safetensors, the same before its training, where shipped) in
`vizcnn/zoo`, beside NAME.json with its architecture, input contract, labels and measured accuracy. What `vizcnn.zoo`
trains for a person is one file: a .safetensors whose metadata hold such a card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from os.path import isfile
from pathlib import Path
from typing import Any

from vizcnn.errors import VizcnnError, WeightsError, did_you_mean
from vizcnn.models.architectures import Architecture, build_filled
from vizcnn.models.checkpoints import CHECKPOINTS
from vizcnn.models.given import Given
from vizcnn.models.model import Model
from vizcnn.models.sources.bundled_networks import NETWORKS
from vizcnn.models.sources.tags import is_file

FOLDER = Path(__file__).parents[2] / "zoo"

CARD = "vizcnn-card"
"""Under which name the metadata of a .safetensors hold a card: a JSON object with `network`, `input` and `labels`."""


def list_names() -> list[str]:
    """The bundled networks, sorted."""
    return sorted(NETWORKS)


@cache
def read_card(name: str) -> dict[str, Any]:
    """A bundled network's facts: architecture, input, labels, accuracy, data, licence, reproduce."""
    facts: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return facts


def find_card(file: str | Path) -> dict[str, Any] | None:
    """The card in a file of weights; None where there is no such file, or one without a card.

    Raises WeightsError for a card that is none."""
    if Path(file).suffix != ".safetensors" or not isfile(file):
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(CARD)
    except (SafetensorError, OSError):  # whoever reads its weights says what is wrong with it
        return None
    return None if text is None else _parse_card(text, str(file))


def _parse_card(text: str, file: str) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except ValueError:
        card = None
    if not (isinstance(card, dict) and _is_whole(card)):
        raise WeightsError(
            f"{file} has a card that does not say its network (of {', '.join(list_names())}), input and labels. It is "
            "damaged, or of another version of vizcnn: train it again, or install that version"
        )
    return card


def _is_whole(card: Mapping[str, Any]) -> bool:
    labels = card.get("labels")
    named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return named and isinstance(card.get("input"), dict) and card.get("network") in list_names()


def load_bundled(name: str, tag: str, given: Given) -> Model:
    """A bundled network with its own weights or others. tag: `initial`, a file of weights, or nothing.

    A file's weights tell the number of classes, and its card, if it has one, their names and the input contract.
    Raises WeightsError."""
    if is_file(tag):
        return _load_file(name, tag, f"{name}@{Path(tag).name}", given)
    spec, card = f"{name}@{tag}" if tag else name, read_card(name)
    classes = len(card["labels"])
    filled = build_filled(_describe(name, classes), _find_shipped(name, tag), spec)
    return _wrap(filled.network, card["input"], card["labels"], spec)


def load_own(file: str, card: Mapping[str, Any], given: Given) -> Model:
    """The network of a file with a card. Raises WeightsError."""
    return _load_file(card["network"], file, Path(file).name, given)


def _load_file(name: str, file: str, spec: str, given: Given) -> Model:
    bundled, own = read_card(name), find_card(file)
    if own and own["network"] != name:
        raise WeightsError(f"{spec}: the file holds weights of {own['network']}. Load it as {own['network']}@{file}")
    usual = len(bundled["labels"])
    filled = build_filled(_describe(name, usual), file, spec, trust_pickle=given.trust_pickle)
    labels = own["labels"] if own else bundled["labels"] if filled.classes == usual else None
    if labels is not None and len(labels) != filled.classes:
        raise WeightsError(
            f"{spec} names {len(labels)} classes and has weights for {filled.classes}. It is damaged: train it again"
        )
    try:
        model = _wrap(filled.network, own["input"] if own else bundled["input"], labels, spec)
    except (TypeError, KeyError, VizcnnError) as error:
        raise WeightsError(f"{spec}: its card has no input contract that this version reads: {error}") from error
    model.notes = () if own else filled.notes
    return model


def _describe(name: str, classes: int) -> Architecture:
    return Architecture([lambda count, _channels: NETWORKS[name](count)], classes, read_card(name)["input"]["channels"])


def _wrap(network: Any, contract: Mapping[str, Any], labels: Sequence[str] | None, spec: str) -> Model:
    return Model(network, labels=labels, head="logits", name=spec, **{**contract, "size": tuple(contract["size"])})


def _find_shipped(name: str, tag: str) -> Path:
    tags = {"": FOLDER / f"{name}.safetensors"}
    tags |= {path.suffixes[0][1:]: path for path in FOLDER.glob(f"{name}.*.safetensors")}
    if tag not in tags:
        others = ", ".join(sorted(filter(None, tags))) or "none"
        raise WeightsError(
            f"{name} has no weights tagged {tag!r}.{did_you_mean(tag, tags)} Other tags: {others}; or a file ending in "
            f"{', '.join(CHECKPOINTS)}"
        )
    return tags[tag]
