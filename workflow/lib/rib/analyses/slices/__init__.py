"""Accuracy by slices, columns that a layout adds to the index of a dataset."""
