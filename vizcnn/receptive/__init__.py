"""What a unit can see: exact receptive fields on any network."""

from vizcnn.receptive.field import ReceptiveField
from vizcnn.receptive.fields import receptive_fields
from vizcnn.receptive.trace import trace_fields

__all__ = ["ReceptiveField", "receptive_fields", "trace_fields"]


def __dir__() -> list[str]:
    return [*__all__]
