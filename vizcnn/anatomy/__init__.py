"""Anatomy: what each unit of a network does, measured: what happens without it, what drives it and what it drives,
which units go along with it, its sums number by number, and pictures made for it."""
