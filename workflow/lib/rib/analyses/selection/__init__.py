"""The variant of each sweep that is chosen by what is stored."""
