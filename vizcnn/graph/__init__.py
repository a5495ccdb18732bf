"""Graph: the operations that a network applies to an image, one by one."""
