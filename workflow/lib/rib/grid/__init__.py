"""What a config asks of the catalogue: runs, their settings, and all paths. No torch."""
