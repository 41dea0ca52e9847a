"""Limits on a method's outputs for training images that are kept in memory, in bytes."""

# On a GPU: logits of 537,000 images. Larger outputs are computed in each step, or kept by the host.
LARGEST_STORED = 2 * 2**30
# Of a teacher in the host's memory, as fp16; the logits of ImageNet-C are 6.75 GB.
LARGEST_OF_TEACHER_ON_HOST = 8 * 10**9
