"""What there is: entries of the catalogue, classes, names on the hub. No torch."""
