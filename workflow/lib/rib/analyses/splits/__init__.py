"""Number of images in the splits of protocol held_out."""
