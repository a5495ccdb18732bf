"""Layers: where a network's layers have their channels and places, and what they give."""
