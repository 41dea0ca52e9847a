"""Cost of one mRI of each method."""
