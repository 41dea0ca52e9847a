"""Copies of the project with a small family, and their runs."""
