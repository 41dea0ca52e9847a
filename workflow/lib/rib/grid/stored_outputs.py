"""Limits on a method's outputs for training images that are kept on a GPU."""

# In bytes. Larger outputs are computed in each step, or kept in the host's memory.
LARGEST_STORED = 2 * 2**30
# Images for which a teacher's logits are stored (2 GB); beyond that, each step computes them.
MOST_STORED = 500_000
