"""Synthetic distortions: what training ranks, what tests whether a score falls, and what a network names."""
