"""Exploring: a network and some images, asked one question after another, in numbers and as a widget of a notebook."""
