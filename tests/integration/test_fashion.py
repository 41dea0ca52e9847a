"""The fashion family as published: its real files, prepared as its jobs do."""

import hashlib
import itertools
import runpy

import numpy as np
import pyarrow.parquet as pq
import pytest

from rib.base.errors import UserError
from rib.data.dataset import PreparedDataset
from rib.data.fetch.download import download
from tiny.data.fashion import DIGESTS
from tiny.data.published import CATALOG, made
from tiny.projects.project import ROOT

pytestmark = pytest.mark.thorough

SETS = {name: entry for name, entry in CATALOG.datasets.items() if entry.family == "fashion"}
OWNER = CATALOG.datasets["fashion_train"]
SCRIPT = ROOT / "workflow/catalog/fashion_adversarial.py"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The four files: of the project's own download, else fetched."""
    folder = ROOT / "data/raw" / OWNER.raw
    names = [source["file"] for source in OWNER.archives]
    if not all((folder / name).is_file() for name in names):
        folder = tmp_path_factory.mktemp("archives")
        try:
            for source in OWNER.archives:
                download(source, folder / source["file"], OWNER.name)
        except UserError as error:
            pytest.skip(f"Fashion-MNIST cannot be fetched: {error}")
    return [folder / name for name in names]


@pytest.fixture(scope="module")
def folders(archives, tmp_path_factory):
    """The folder of every set, prepared at 32 px."""
    top = tmp_path_factory.mktemp("fashion")
    return {name: made(name, top / name, archives, 32) for name in SETS}


@pytest.fixture(scope="module")
def sets(folders):
    return {name: PreparedDataset.open(folder, name) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def published(archives):
    """Photos and labels by part, read without the layout."""
    bytes_of = {path.name: np.fromfile(path, np.uint8) for path in archives}
    return {
        part: (
            bytes_of[f"{part}-images-idx3-ubyte"][16:].reshape(-1, 28, 28),
            bytes_of[f"{part}-labels-idx1-ubyte"][8:],
        )
        for part in ("train", "t10k")
    }


def photos_of(dataset, published):
    """The published photos and labels of a dataset's images, by their source ids."""
    photos = []
    labels = []
    for source_id in dataset.index["source_id"].to_pylist():
        collection, part, number = source_id.split("/")
        assert collection == "fashion"
        photos.append(published[part][0][int(number)])
        labels.append(published[part][1][int(number)])
    return np.array(photos), np.array(labels)


def test_no_two_sets_share_a_photo(sets):
    sources = {name: set(dataset.sources[1]) for name, dataset in sets.items()}
    for some, others in itertools.combinations(sources.values(), 2):
        assert not some & others
    assert {name: len(found) for name, found in sources.items()} == {
        name: len(dataset.images) for name, dataset in sets.items()
    }
    assert sum(map(len, sources.values())) == 50_000 + 2_000 + 7 * 1_500 + 902


def test_every_class_has_its_share_of_every_set_but_the_filtered_one(sets):
    for name, dataset in sets.items():
        counts = np.bincount(dataset.labels, minlength=10)
        if name == "fashion_adversarial":
            assert counts.min() == 35 and counts.sum() == 902
        else:
            assert set(counts) == {len(dataset.labels) // 10}


def test_labels_and_plain_photos_are_the_files(sets, published):
    for name, dataset in sets.items():
        photos, labels = photos_of(dataset, published)
        assert (dataset.labels == labels).all()
        if name in ("fashion_train", "fashion", "fashion_adversarial"):
            images = np.asarray(dataset.images)
            assert (images[:, 2:30, 2:30] == photos[..., np.newaxis]).all()
            assert images.sum() == 3 * photos.sum(dtype=np.int64)


def test_renditions_differ_from_the_photos_and_no_photo_is_lost(sets, published):
    for name, dataset in sets.items():
        if name in ("fashion_train", "fashion", "fashion_adversarial"):
            continue
        photos, _ = photos_of(dataset, published)
        padded = np.pad(photos, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis].astype(int)
        assert np.abs(dataset.images - padded).mean() > 10, name
        assert np.asarray(dataset.images).std(axis=(1, 2, 3)).min() > 2, name


def test_corruptions_are_as_frequent_in_every_class(folders):
    index = pq.read_table(folders["fashion_corrupted"] / "index.parquet").to_pandas()
    counts = index.groupby(["label", "corruption", "severity"], observed=True).size()
    classes, corruptions, severities, photos_of_each = 10, 10, 5, 3
    assert len(counts) == classes * corruptions * severities
    assert set(counts) == {photos_of_each}


@pytest.mark.parametrize("name", SETS)
def test_prepared_bytes_are_the_same_everywhere(folders, name):
    digest = hashlib.sha256((folders[name] / "images.npy").read_bytes()).hexdigest()
    assert digest[:16] == DIGESTS[name]


def test_the_list_of_the_filtered_set_is_what_its_script_makes(archives):
    script = runpy.run_path(str(SCRIPT))
    settings = {name: SETS[name].settings for name in ("fashion_train", "fashion_adversarial")}
    rows = script["wrong_images"](archives[0].parent, settings)
    listed = CATALOG.table("fashion_adversarial.csv", ["image_id", "label", "predicted"], [])
    assert [tuple(row.values()) for row in listed] == [
        (f"train/{number:05d}", str(label), str(predicted)) for number, label, predicted in rows
    ]
