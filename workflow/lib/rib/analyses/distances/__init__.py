"""Distances between datasets, and their relation to effects of fine-tuning."""
