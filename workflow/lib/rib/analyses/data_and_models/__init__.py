"""What a reader needs to know of the datasets and models."""
