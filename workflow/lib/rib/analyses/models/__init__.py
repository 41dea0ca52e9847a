"""Pretrained models compared that were fine-tuned with the same method."""
