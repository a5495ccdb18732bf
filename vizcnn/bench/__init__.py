"""Measurements behind the figures in README.md here; run by hand, and once at a tiny size by the tests."""
