"""The benchmark itself: accuracies, RI and mRI of the whole grid."""
