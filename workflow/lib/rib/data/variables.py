"""Environment variables that pass machine-dependent settings to jobs without making them rule parameters."""

import os

ARCHIVES = "RIB_ARCHIVES"  # folders with downloaded archives, separated as in PATH
CORRUPT_IMAGES = "RIB_CORRUPT_IMAGES"  # maximum of images left out per dataset; the manifest lists them
PHOTO_MEGABYTES, PHOTO_MEGAPIXELS = "RIB_PHOTO_MEGABYTES", "RIB_PHOTO_MEGAPIXELS"  # limits of a photo
DEFAULTS = {PHOTO_MEGABYTES: 256, PHOTO_MEGAPIXELS: 100}  # outside of Snakemake


def photo_limit(variable: str) -> int:
    """The largest number of bytes or pixels of a photo."""
    return int(os.environ.get(variable, DEFAULTS[variable])) * 10**6
