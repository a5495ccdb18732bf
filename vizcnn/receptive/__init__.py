"""What a unit can see: exact receptive fields on any network."""

from vizcnn.receptive.field import ReceptiveField
from vizcnn.receptive.fields import computed_fields, receptive_fields

__all__ = ["ReceptiveField", "computed_fields", "receptive_fields"]
