"""Scores, features, inversions and Fisher information of networks; selection of merges."""
