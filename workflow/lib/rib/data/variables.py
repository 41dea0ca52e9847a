"""Environment variables that pass machine-dependent settings to jobs without making them rule parameters."""

import os
from collections.abc import Mapping

ARCHIVES = "RIB_ARCHIVES"  # folders with downloaded archives, separated as in PATH
CORRUPT_IMAGES = (
    "RIB_CORRUPT_IMAGES"  # maximum of images left out per dataset; the manifest lists them
)
PHOTO_MEGABYTES, PHOTO_MEGAPIXELS = (
    "RIB_PHOTO_MEGABYTES",
    "RIB_PHOTO_MEGAPIXELS",
)  # limits of a photo
ARCHIVE_RATIO = "RIB_ARCHIVE_RATIO"  # bytes that a byte of an archive may unpack to
DEFAULTS = {PHOTO_MEGABYTES: 256, PHOTO_MEGAPIXELS: 100, ARCHIVE_RATIO: 100}  # outside of Snakemake


def set_from(config: Mapping) -> None:
    """Set the variables as config.yaml says."""
    if folders := config["archives"]:
        os.environ[ARCHIVES] = os.pathsep.join([folders] if isinstance(folders, str) else folders)
    os.environ[CORRUPT_IMAGES] = str(config["corrupt_images"])
    os.environ[PHOTO_MEGABYTES] = str(config["limits"]["photo_megabytes"])
    os.environ[PHOTO_MEGAPIXELS] = str(config["limits"]["photo_megapixels"])
    os.environ[ARCHIVE_RATIO] = str(config["limits"]["archive_ratio"])


def limit(variable: str) -> int:
    """A limit as config.yaml has it."""
    return int(os.environ.get(variable, DEFAULTS[variable]))


def photo_limit(variable: str) -> int:
    """The largest number of bytes or pixels of a photo."""
    return limit(variable) * 10**6
