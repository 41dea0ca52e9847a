"""What is shown of a training in its course; no result depends on it."""
