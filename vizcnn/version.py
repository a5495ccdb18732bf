"""The version of this package, for provenance and packaging."""

__version__ = "0.1.0"
