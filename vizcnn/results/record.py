"""Record: what can be read of a saved result that cannot be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from vizcnn.errors import ParameterError
from vizcnn.results.base import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Record(Result):
    """A saved result's provenance, findings and numbers, without its picture.

    `load_result` gives one for a .json of a result whose numbers are not in it, and for a kind of result that no
    imported package defines.

    kind: the name of the class that was saved. found: its summary. words: its description. numbers: its arrays, by
    name; none from .json.
    """

    kind: str
    found: Mapping[str, Any]
    words: str
    numbers: Mapping[str, npt.NDArray[Any]]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Those of the result that was saved."""
        return {**self.numbers}

    def summary(self) -> dict[str, Any]:
        return {**self.found}

    def records(self) -> list[dict[str, Any]]:
        """Those that the saved summary holds, as its kind of result tells them where that is imported."""
        return list_kinds().get(self.kind, Result).records_of(self.found)

    def describe(self) -> str:
        return self.words

    def figure(self) -> Figure:
        """Raises ParameterError."""
        raise ParameterError(
            f"of this {self.kind} the file held the record alone, which has no picture. Open the .npz or .safetensors "
            "of it, with the package imported that defines it"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": str(self)}  # a notebook asks every result for its picture, and shows the error of none


def list_kinds() -> dict[str, type[Result]]:
    """All of our kinds of results, and those of others that are imported, by name; ours before others of the same
    name."""
    room = import_module(__package__)
    for name in room.__all__:  # which load on first use
        getattr(room, name)
    found, waiting = list[type[Result]](), [Result]
    while waiting:
        below = waiting.pop().__subclasses__()
        found += below
        waiting += below
    found.sort(key=lambda kind: kind.__module__.startswith("vizcnn."))
    return {kind.__name__: kind for kind in found}
