"""Given: what a person says of a network beside its name, which goes before what its source says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vizcnn.errors import ParameterError, VizcnnError
from vizcnn.models.contract import parse_display
from vizcnn.models.labels import parse_labels

if TYPE_CHECKING:
    from vizcnn.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a person says of a network; None is left to the source of the network.

    input_size: height and width in px. mean, std: per channel, for values in [0, 1]. class_names: one for each output.
    input_channels, classes: what an architecture of torchvision, timm or transformers is built for.
    white, display, fit, resize, interpolation, antialias: as in `vizcnn.models.contract`. head, output: as for
        `vizcnn.Model`.
    layer: the layer that probes look at where they are told of none. trust_pickle: whether reading a file may run code.
    """

    input_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    input_channels: int | None = None
    classes: int | None = None
    white: float | None = None
    display: tuple[int, ...] | None = None
    fit: str | None = None
    resize: int | None = None
    interpolation: str | None = None
    antialias: bool | None = None
    head: str | None = None
    output: str | int | None = None
    layer: str | None = None
    trust_pickle: bool = False

    def over(self, other: Given) -> Given:
        """The same, and what `other` says where this says nothing."""
        values = ((each.name, getattr(self, each.name), getattr(other, each.name)) for each in fields(Given))
        return Given(**{name: value if own is None else own for name, own, value in values})

    def refuse_classes(self, name: str) -> None:
        """Raise ParameterError for a number of classes that was given, where nobody builds the network for it."""
        if self.classes is not None:
            raise ParameterError(
                f"classes {self.classes} was given, and {name} is not built for a number of classes. Only "
                "architectures of torchvision, timm and transformers are; leave it out"
            )

    def refuse_other_shape(self, weights: str, channels: int, classes: int, remedy: str) -> None:
        """Raise ParameterError where other numbers were given than those that weights are for."""
        if self.input_channels not in (None, channels) or self.classes not in (None, classes):
            raise ParameterError(
                f"{weights} are for {channels} channels and {classes} classes, and {self.input_channels or channels} "
                f"and {self.classes or classes} were given. {remedy}"
            )

    def apply(self, model: Model) -> None:
        """Put what was given in place of what a Model says of itself. Raises ParameterError."""
        from vizcnn.models.head import check_head

        contract = model.input
        if self.input_channels not in (None, contract.channels):
            raise ParameterError(
                f"{model.name} takes {contract.channels} channels, and input-channels {self.input_channels} was given. "
                "Only architectures of torchvision, timm and transformers are built for another number; leave it out"
            )
        names = ("mean", "std", "white", "display", "fit", "resize", "interpolation", "antialias")
        changes: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.input_size is not None:
            changes = {"resize": _scale_resize(contract.resize, contract.size, self.input_size), **changes}
            changes["size"] = self.input_size
        if changes:
            model.input = replace(contract, **changes)
        if self.class_names is not None:
            model.labels = self.class_names
        if self.head is not None:
            model.head = check_head(self.head)
        if self.output is not None:
            model.output = self.output
        if self.layer is not None:
            model.layer(self.layer)
            model.default_layer = self.layer


def _scale_resize(resize: int | None, old: tuple[int, int], new: tuple[int, int]) -> int | None:
    """The shorter side before the cut, so that the cut leaves as large a part of a photograph as before."""
    return None if resize is None else max(*new, round(resize * max(new) / max(old)))


def read_given(
    *,
    input_size: Any = None,
    mean: Any = None,
    std: Any = None,
    class_names: Any = None,
    input_channels: int | None = None,
    classes: int | None = None,
    trust_pickle: bool = False,
    white: float | None = None,
    display: Any = None,
) -> Given:
    """What is given as keyword arguments of `vizcnn.load`, checked. Raises ParameterError."""
    return Given(
        input_size=None if input_size is None else read_size(input_size),
        mean=None if mean is None else read_numbers("mean", mean),
        std=None if std is None else read_numbers("std", std),
        class_names=None if class_names is None else read_names(class_names),
        input_channels=None if input_channels is None else read_count("input channels", input_channels),
        classes=None if classes is None else read_count("classes", classes),
        trust_pickle=trust_pickle,
        white=white,
        display=None if display is None else parse_display(display),
    )


def read_size(value: Any) -> tuple[int, int]:
    """Height and width from 224, `224`, `224x320` (height first) or a pair. Raises ParameterError."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d{1,6})(?:\s*[x×]\s*(\d{1,6}))?\s*", value)
        sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    else:
        pair = [value, value] if not isinstance(value, Sequence) else [*value]
        whole = len(pair) == 2 and all(hasattr(side, "__index__") and not isinstance(side, bool) for side in pair)
        sides = (int(pair[0]), int(pair[1])) if whole else (0, 0)
    if min(sides) < 1:
        raise ParameterError(
            f"an input size is a side in px, such as 224, or HEIGHTxWIDTH, such as 224x320, got {value!r}"
        )
    return sides


def read_numbers(name: str, value: Any) -> tuple[float, ...]:
    """A number for each channel, from `0.485,0.456,0.406` or a sequence. Raises ParameterError."""
    try:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{name} is a number for each channel, such as 0.485,0.456,0.406, got {value!r}"
        ) from error


def read_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(f"{name}: a positive number is needed, got {value!r}")
    return value


def read_names(value: Any) -> tuple[str, ...]:
    """The names of the classes in the order of the outputs.

    value: a sequence of names; a mapping from numbers to names, or from names to numbers; or a file with a name on each
        line, a JSON list, or such a JSON mapping, also inside a mapping as its `id2label`.
    Raises ParameterError."""
    if isinstance(value, str | PathLike):
        path = Path(value)
        try:
            return read_names(_read_file(path))
        except VizcnnError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ParameterError(f"names of classes cannot be read from {path}: {reason}") from error
    if isinstance(value, Mapping):
        value = parse_labels(value.get("id2label", value))
    if not isinstance(value, Sequence) or not value or not all(isinstance(name, str) and name for name in value):
        raise ParameterError(f"names of classes are a list of texts, or a mapping from numbers to names, got {value!r}")
    return tuple(value)


def _read_file(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            if path.suffix == ".json":
                raise
    names = [line.strip() for line in text.rstrip().splitlines()]
    if "" in names or not names:
        raise ParameterError(
            f"{path} has no name of a class on line {names.index('') + 1 if names else 1}. Give every class one"
        )
    return names
