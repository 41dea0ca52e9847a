"""Environment variables that pass machine-dependent settings to jobs without making them rule parameters."""

ARCHIVES = "RIB_ARCHIVES"  # folders with downloaded archives, separated as in PATH
CORRUPT_IMAGES = "RIB_CORRUPT_IMAGES"  # maximum of images left out per dataset; the manifest lists them
