"""Small networks at random weights, and their training."""
