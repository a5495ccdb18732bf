"""The bundled networks: trained by us, shipped with their labels, read without a network connection.

Their weights and cards lie here, with the scripts that trained them; `train_own` teaches one of them the classes of a
person's own images. `vizcnn.models.sources.bundled` reads them. The cards for people are in README.md here.
"""

from vizcnn.models.sources.bundled import FOLDER, list_names, read_card

__all__ = ["FOLDER", "list_names", "read_card"]
