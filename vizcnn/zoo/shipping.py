"""What the training scripts share: checkpoints that survive a kill, and the file that ships."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import nn

from vizcnn.errors import OutputError
from vizcnn.models.sources.bundled import CARD, find_card
from vizcnn.output import write_whole

Log = list[dict[str, float]]
"""What was measured after each finished epoch of a training run."""


def save_checkpoint(file: Path, parts: Mapping[str, Any], recipe: Mapping[str, Any], log: Log) -> None:
    """Keep everything that the rest of a training run depends on."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with write_whole(file) as fresh:
        torch.save({**state, "log": log, "recipe": dict(recipe)}, fresh)


def resume(file: Path, parts: Mapping[str, Any], recipe: Mapping[str, Any]) -> Log:
    """Put a checkpoint, if there is one, into the parts; returns the log of the finished epochs."""
    if not file.exists():
        return []
    saved = torch.load(file, weights_only=True)
    if saved["recipe"] != dict(recipe):
        raise SystemExit(f"{file} was made with another recipe: {saved['recipe']}. Use another --out folder.")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    log: Log = saved["log"]
    return log


def write_card(file: Path, facts: Mapping[str, Any]) -> None:
    """Write what a bundled network is and how well it does, as vizcnn.zoo reads it."""
    with write_whole(file) as fresh:
        fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def ship(network: nn.Module, file: Path) -> None:
    """Write a network's weights in half precision."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    with write_whole(file) as fresh:
        save_file({name: value.contiguous() for name, value in half.items()}, fresh)


def save_own(network: nn.Module, file: Path, card: Mapping[str, Any]) -> None:
    """Write a network's weights as they are, with a card, so that `vizcnn.load(file)` needs no more.

    card: `network` (the bundled one that it is), `input` and `labels`; and `maker`, who writes it.
    Raises OutputError where there is a file that this maker has not written."""
    refuse_foreign(file, card["maker"])
    with write_whole(file) as fresh:
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        fresh.write_bytes(save(state, {CARD: json.dumps(dict(card))}))  # save_file would let nobody else read it


def refuse_foreign(file: Path, maker: str) -> None:
    """Raise OutputError where there is a file of weights that another maker has written."""
    if file.exists() and (find_card(file) or {}).get("maker") != maker:
        raise OutputError(f"{file} exists and is not of {maker}; it was left alone. Choose another name")
