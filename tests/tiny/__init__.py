"""The `tiny` family: a few synthetic images and random-weight networks, for tests."""
