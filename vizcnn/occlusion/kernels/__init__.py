"""Kernels: oneDNN's convolutions with norms, sums and activations inside, and Winograd's algorithm."""
