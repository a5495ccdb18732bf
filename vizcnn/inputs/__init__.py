"""Inputs: anything that a person calls an image or a data set."""
