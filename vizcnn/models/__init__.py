"""Models: the network under study, and everything needed to use it rightly."""
