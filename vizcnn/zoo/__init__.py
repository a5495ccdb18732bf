"""The bundled networks: trained by us, shipped with their labels, read without a network connection.

Each is NAME.safetensors (and NAME.initial.safetensors, the same network before its training, where shipped) beside
NAME.json with its architecture, input contract, labels and measured accuracy. The cards are in README.md here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vizcnn.errors import WeightsError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent


def list_names() -> list[str]:
    """The bundled networks, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def read_card(name: str) -> dict[str, Any]:
    """A bundled network's facts: architecture, input, labels, accuracy, data, licence, reproduce."""
    facts: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return facts


def load_network(name: str, tag: str = "") -> nn.Module:
    """A bundled network; the tag `initial` gives it as it was before its training."""
    from safetensors.torch import load_file

    from vizcnn.zoo import networks

    network: nn.Module = getattr(networks, read_card(name)["architecture"])()
    network.load_state_dict(load_file(_file(name, tag)))
    return network


def _file(name: str, tag: str) -> Path:
    tags = {"": FOLDER / f"{name}.safetensors"}
    tags |= {path.suffixes[0][1:]: path for path in FOLDER.glob(f"{name}.*.safetensors")}
    if tag not in tags:
        others = ", ".join(sorted(filter(None, tags))) or "none"
        raise WeightsError(f"{name} has no weights tagged {tag!r}.{did_you_mean(tag, tags)} Other tags: {others}")
    return tags[tag]
