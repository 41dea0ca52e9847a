"""Training history by epoch."""
