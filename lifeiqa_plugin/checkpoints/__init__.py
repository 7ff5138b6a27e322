"""Weights on the disk, and the factory that makes a network of them."""
