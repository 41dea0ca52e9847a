"""The digits family as published: real packages, every part of them against the file itself."""

import gzip
import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.config.geometry import Geometry
from rib.data.archives import archive_members
from rib.data.images import DatasetSource
from rib.data.layouts import digit_fonts, digits
from rib.data.layouts._digits import MARGIN
from rib.data.prepared import PreparedDataset
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_proxy, load_whole
from tiny.changed import replace
from tiny.project import ROOT
from tiny.published import CATALOG, fetched, made
from tiny.training import VIEW

pytestmark = pytest.mark.thorough

SPACE = CATALOG.family_label_space("digits")
SETS = {name: entry for name, entry in CATALOG.datasets.items() if entry.family == "digits"}
GEOMETRY = Geometry(32, 1.0, "bicubic")
ANOTHER_PROCESS = """
import sys; sys.path[:0] = {paths!r}
from pathlib import Path
from tiny.published import made
made("{name}", Path("{folder}"), Path("{archive}"), 32)
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archive by the dataset that owns it."""
    folder = tmp_path_factory.mktemp("archives")
    return {
        name: fetched(CATALOG.datasets[name], folder)
        for name in {entry.raw for entry in SETS.values()}
    }


@pytest.fixture(scope="module")
def folders(archives, tmp_path_factory):
    """The folder of every set, prepared at 32 px."""
    top = tmp_path_factory.mktemp("digits")
    return {name: made(name, top / name, archives[entry.raw], 32) for name, entry in SETS.items()}


@pytest.fixture(scope="module")
def sets(folders):
    return {name: PreparedDataset.open(folder, name) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def published(archives):
    """The file's 1797 lines, read without the layout."""
    (data,) = [
        read()
        for name, read in archive_members(archives["digits"])
        if name.endswith("digits.csv.gz")
    ]
    return np.array(
        [line.split(",") for line in gzip.decompress(data).decode().splitlines()], float
    ).astype(int)


def test_every_class_has_its_share_of_every_set(sets):
    counts = {name: set(np.bincount(found.labels, minlength=10)) for name, found in sets.items()}
    assert (
        counts.pop("digits") == {70}
        and set(map(tuple, counts.values())) == {(20,)}
        and len(counts) == 6
    )


def test_no_two_sets_share_a_source_image(sets):
    every = [source for found in sets.values() for source in found.sources[1]]
    assert len(every) == len(set(every)) == 700 + 6 * 200
    handwritten = [
        source
        for name, found in sets.items()
        if name != "digits_font"
        for source in found.sources[1]
    ]
    assert all(source.startswith("digits/") for source in handwritten)


def test_labels_and_pixels_are_the_files(sets, published):
    assert len(published) == 1797
    for name in SETS.keys() - {"digits_font"}:
        lines = published[[int(image) for image in sets[name].index["image_id"].to_pylist()]]
        assert (lines[:, -1] == sets[name].labels).all()
    for name in ("digits", "digits_test"):
        lines = published[sets[name].index["image_id"].to_numpy().astype(int)]
        for image, line in zip(sets[name].images, lines, strict=True):
            side = 8 + 2 * MARGIN
            small = np.asarray(
                Image.fromarray(image).convert("L").resize((side, side), Image.Resampling.BOX),
                float,
            )
            ink = (255 - small[MARGIN:-MARGIN, MARGIN:-MARGIN]) / 255 * 16
            assert np.abs(ink - line[:-1].reshape(8, 8)).mean() < 1.5


def test_renditions_differ_from_the_plain_digits_and_from_one_another(sets):
    grey = {name: found.images.mean(axis=(0, 3)) for name, found in sets.items()}
    names = [name for name in SETS if name != "digits_test"]
    for place, one in enumerate(names):
        for other in names[:place]:
            assert np.abs(grey[one] - grey[other]).mean() > 4, (one, other)
    assert np.abs(grey["digits"] - grey["digits_test"]).mean() < 4


def test_corruptions_are_spread_evenly_over_classes(sets):
    """Noise raises the difference of neighbours, low contrast the darkest white.

    They do so in every class as often.
    """
    found = sets["digits_corrupted"]
    pale = found.images.max(axis=(1, 2, 3)) < 170
    assert set(np.bincount(found.labels[pale])) == {4}


@pytest.mark.parametrize(
    "name", ["digits_corrupted", "digits_cartoon", "digits_edges", "digits_drawn", "digits_font"]
)
def test_another_process_makes_the_same_bytes(name, folders, archives, tmp_path):
    paths = [str(ROOT / "workflow/lib"), str(ROOT / "tests")]
    text = ANOTHER_PROCESS.format(
        paths=paths, name=name, folder=tmp_path / name, archive=archives[SETS[name].raw]
    )
    subprocess.run(
        [sys.executable, "-c", text], check=True, env={"PYTHONHASHSEED": "7"}, timeout=120
    )
    for file in ("images.npy", "index.parquet", "classes.json", "manifest.json"):
        assert sha256(tmp_path / name / file) == sha256(folders[name] / file)


def test_pretraining_subsets_are_nested_and_are_the_models_proxy(folders):
    sizes = [
        str(CATALOG.models[f"digits_cnn_{size}"].pretrain["size"]) for size in (50, 150, 400, "all")
    ]
    files = DatasetFiles("digits", folders["digits"])
    parts = [subset(load_whole(files, VIEW), size, seed=0) for size in sizes]
    assert [len(part.labels) for part in parts] == [50, 150, 400, 700]
    for small, large in itertools.pairwise(parts):
        assert set(small.sources[1]) < set(large.sources[1])
        counts = np.bincount(small.labels)
        assert counts.max() - counts.min() <= 1
    assert (
        load_proxy(files, replace(VIEW, pretraining_size=sizes[1])).sources[1]
        == parts[1].sources[1]
    )
    assert len(load_proxy(files, VIEW).labels) == 700


def test_the_order_within_a_class_depends_on_nothing_but_the_line(published):
    ranks = digits.class_ranks(published[:, -1])
    for digit in range(10):
        own = ranks[published[:, -1] == digit]
        assert sorted(own) == list(range(len(own)))
    first = hashlib.sha256(b"digits/0").hexdigest()
    others = np.flatnonzero(published[:, -1] == published[0, -1])
    assert ranks[0] == sum(
        hashlib.sha256(f"digits/{row}".encode()).hexdigest() < first for row in others
    )


def items(layout, archive, **settings):
    return list(layout.items(DatasetSource("set", [archive], SPACE, GEOMETRY), **settings))


def test_what_the_packages_lack_is_named(archives):
    with pytest.raises(UserError, match="set: .*'inked'.*plain, corrupted"):
        items(digits, archives["digits"], variant="inked", first=0, last=1)
    with pytest.raises(UserError, match="set: digit 8 has 174 images.* 170 to 175"):
        items(digits, archives["digits"], variant="plain", first=170, last=175)
    with pytest.raises(UserError, match=r"matplotlib.*sklearn/datasets/data/digits\.csv\.gz"):
        items(digits, archives["digits_font"], variant="plain", first=0, last=1)
    with pytest.raises(UserError, match=r"matplotlib-.*whl.*'Comic'"):
        items(digit_fonts, archives["digits_font"], fonts=["DejaVuSans", "Comic"])
