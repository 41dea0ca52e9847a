"""Made-up repositories with the columns of those that families of the catalogue come from.

Columns, splits and domains are those that stored pages of the repositories show, written down here
a second time; photos are small squares whose colour is the class.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rib.catalog.catalog import Catalog
from tiny.data.parquet import write_photos

SIDE = 40  # pixels
PATIENTS = 7
SLIDES = 9
CENTERS = [
    "train-center1",
    "validation-center",
    "test-center",
    "train-center2",
    "train-center3",
]
TRAINED_CENTERS = ["train-center1", "train-center2", "train-center3"]


@dataclass(frozen=True)
class HubFamily:
    """The repository of a family.

    Attributes:
        repo: OWNER/NAME.
        commit: the commit that was looked at.
        domain: the column of the domain.
        domains: domains that occur in each split.
        domain_names: what the numbers in the column of the domain stand for; None if it has texts.
    """

    repo: str
    commit: str
    domain: str
    domains: dict[str, list[str]]
    domain_names: list[str] | None = None


HUB_FAMILIES = {
    "officehome": HubFamily(
        repo="flwrlabs/office-home",
        commit="d430d44779e929b335be368ab3456484e5de36bb",
        domain="domain",
        domains={"train": ["Art", "Clipart", "Product", "Real World"]},
    ),
    "camelyon17": HubFamily(
        repo="wltjr1007/Camelyon17-WILDS",
        commit="d784d5344ba6c967f83f9f3d9b2f1e2a4d6eb78f",
        domain="center",
        domains={
            "train": TRAINED_CENTERS,
            "validation": [*TRAINED_CENTERS, "validation-center"],
            "test": ["test-center"],
        },
        domain_names=CENTERS,
    ),
}


def photo(label: int, number: int) -> bytes:
    """An encoded photo whose colour is the class, and in which no two numbers are the same."""
    colour = np.array([label % 5, label // 5 % 5, label // 25]) * 50
    noise = np.random.default_rng(number).integers(0, 40, (SIDE, SIDE, 3))
    encoded = io.BytesIO()
    Image.fromarray((colour + noise).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def write_split(folder: Path, family: str, split: str, images: dict[str, int]) -> Path:
    """Write the Parquet file of a split.

    Args:
        family: a key of HUB_FAMILIES.
        images: number of images of each class, by domain.
    """
    hub_family = HUB_FAMILIES[family]
    keys = Catalog([Path(__file__).parents[3] / "workflow/catalog"]).family_label_space(family).keys
    columns: dict[str, list] = {"image": [], hub_family.domain: [], "label": []}
    for domain in hub_family.domains[split]:
        for label in range(len(keys)):
            for _ in range(images[domain]):
                number = len(columns["label"])
                columns["image"].append(photo(label, number))
                columns["label"].append(label)
                columns[hub_family.domain].append(domain)
    names = {"label": list(keys)}
    if hub_family.domain_names is not None:
        texts = columns[hub_family.domain]
        columns[hub_family.domain] = [hub_family.domain_names.index(text) for text in texts]
        names[hub_family.domain] = hub_family.domain_names
        columns["patient"] = [number % PATIENTS for number in range(len(texts))]
        columns["slide"] = [number % SLIDES for number in range(len(texts))]
    return write_photos(folder / f"{split}.parquet", columns, names)
