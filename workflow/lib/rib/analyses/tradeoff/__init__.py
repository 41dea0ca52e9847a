"""Trade-off between accuracy on the target and mRI."""
