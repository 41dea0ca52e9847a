"""Groups of networks compared that differ in pretraining: means over networks, and differences."""
