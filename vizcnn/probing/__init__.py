"""Probing: what a probe is, and what it is handed."""
