"""mRI with and without adversarially filtered datasets."""
