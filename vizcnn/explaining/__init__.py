"""Explaining one image: several methods, how far each can be believed, units, and what would change the answer."""
