"""Inputs: anything that a person calls an image or a data set.

Names load on first use: data sets need torch, photographs do not.
"""

# What is not public has names with _, for those who complete `vizcnn.inputs.` by reading this file.
import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from vizcnn.inputs.datasets import dataset as dataset
    from vizcnn.inputs.images import image_files as image_files
    from vizcnn.inputs.images import open_photo as open_photo
    from vizcnn.inputs.records import provenance_in as provenance_in

_HOMES = {
    "dataset": "vizcnn.inputs.datasets",
    "image_files": "vizcnn.inputs.images",
    "open_photo": "vizcnn.inputs.images",
    "provenance_in": "vizcnn.inputs.records",
}

__all__ = ["dataset", "image_files", "open_photo", "provenance_in"]


def __getattr__(name: str) -> _typing.Any:
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vizcnn.inputs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
