"""Datasets: downloads, archive layouts, image geometry and prepared arrays."""
