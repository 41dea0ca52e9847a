"""Merges over targets, which have no target and no RI."""
