"""Digests of renditions and corruptions, which are pinned here.

They need NumPy and Pillow alone, so that they can be computed with any versions of the two:
`python -m tiny.data.rendered` prints those that differ from the pinned ones, and fails if one does.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from rib.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from rib.data.images import DatasetSource
from rib.data.layouts import corruptions_of, idx
from rib.data.renditions import RENDITIONS
from rib.schema.geometry import Geometry
from tiny.data.idx import SPACE, garments, write_collection

PHOTOS = np.pad(garments(20), ((0, 0), (2, 2), (2, 2)))
GEOMETRY = Geometry(size=32, crop_pct=1.0, interpolation="bicubic")
SETTINGS = {"collection": "clothes", "part": "train", "first": 1, "last": 3, "border": 2}
# First 16 hex digits of SHA-256.
PINNED = {
    "rendition plain": "b7e5af07dcf89ae9",
    "rendition edges": "b20cd7d9844ef931",
    "rendition cartoon": "1c429dcec3afd70d",
    "rendition drawing": "717499bdbee61109",
    "rendition background": "a4dd0287a253f3bf",
    "rendition tilted": "37c1bd2d4f7c6ebe",
    "rendition recoloured": "34c01371fb553968",
    "corruption gaussian_noise": "8d6a3486f89a426a",
    "corruption speckle_noise": "9ef32057779e2a27",
    "corruption impulse_noise": "c33a5803717548ce",
    "corruption gaussian_blur": "320db5057fa01d23",
    "corruption motion_blur": "cc78ad16928bec7e",
    "corruption fog": "919f9fb3248548b5",
    "corruption brightness": "8613ab3ceeae9784",
    "corruption contrast": "411fa38fbd7045ad",
    "corruption pixelate": "5966bab8d898efb2",
    "corruption occlusion": "d8f16eef3a20a907",
    "layout idx, plain": "c3f182834802acfe",
    "layout idx, edges": "d2a53e99677e877c",
    "layout idx, background": "349f2e416caab7aa",
    "layout idx, tilted": "5a703ed969856904",
    "layout corruptions_of": "4f921c541251822d",
}


def digests() -> dict[str, str]:
    """Digest of the pictures of each rendition, corruption and layout."""
    computed = {}
    for name, rendition in RENDITIONS.items():
        pictures = [rendition(photo, str(number)) for number, photo in enumerate(PHOTOS)]
        computed[f"rendition {name}"] = digest_of(pictures)
    for name in CORRUPTIONS:
        pictures = []
        for number, photo in enumerate(PHOTOS[:5]):
            for severity in SEVERITIES:
                pictures.append(corrupt(photo, name, severity, str(number)))
        computed[f"corruption {name}"] = digest_of(pictures)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_collection(Path(folder))
        dataset = DatasetSource("set", paths, SPACE, GEOMETRY, photos_layout=idx.__file__)
        for rendition in ("plain", "edges", "background", "tilted"):
            items = idx.items(dataset, rendition=rendition, **SETTINGS)
            computed[f"layout idx, {rendition}"] = digest_of([item.picture for item in items])
        items = corruptions_of.items(
            dataset,
            photos={"layout": "idx", "settings": SETTINGS},
            corruptions=list(CORRUPTIONS),
            severities=[3],
        )
        computed["layout corruptions_of"] = digest_of([item.picture for item in items])
    return computed


def digest_of(pictures: list[np.ndarray]) -> str:
    """Digest of the bytes of several pictures."""
    total = hashlib.sha256()
    for picture in pictures:
        total.update(picture.tobytes())
    return total.hexdigest()[:16]


if __name__ == "__main__":
    different = {name: digest for name, digest in digests().items() if PINNED.get(name) != digest}
    for name, digest in different.items():
        print(f'    "{name}": "{digest}",')
    sys.exit(len(different))
