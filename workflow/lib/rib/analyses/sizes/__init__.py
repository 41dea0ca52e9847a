"""Robustness by the numbers of fine-tuning and of pretraining images."""
