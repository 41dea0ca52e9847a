"""Accuracies of pretrained models compared with published ones."""
