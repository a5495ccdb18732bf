"""Graph: what a network does, operation by operation."""
