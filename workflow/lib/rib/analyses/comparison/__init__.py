"""Methods compared: differences from a reference, pairs, a ranking, and tables for papers."""
