"""Learning rates chosen from a sweep."""
