"""Scoring of networks, their features, inversions and merges."""
