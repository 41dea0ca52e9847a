"""Learning rates chosen from a sweep on the training images alone."""
