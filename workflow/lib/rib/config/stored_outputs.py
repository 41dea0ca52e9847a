"""How much of its outputs for the training images a method may keep on a GPU."""

# Bytes. More of them are computed in each step, or are kept in the memory of the host.
LARGEST_STORED = 2 * 2**30
