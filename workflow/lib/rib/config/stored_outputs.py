"""How much of its outputs for the training images a method may keep on a GPU."""

# Bytes. More of them are computed in each step, or are kept in the memory of the host.
LARGEST_STORED = 2 * 2**30
# Images up to which a teacher's logits are stored (2 GB); of more they are computed in each step.
MOST_STORED = 500_000
