"""Evaluation: how far a map can be believed. It knows models, tensors and maps, and no probe."""
