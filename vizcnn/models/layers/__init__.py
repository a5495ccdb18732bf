"""Layers: where a network's layers have their channels, rows and columns, and how to read what they give."""
