"""Families of the catalogue that are repositories of the hub, whose files we have not fetched."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from rib.catalog.catalog import Catalog
from rib.catalog.hub_names import (
    LOCK,
    HubFile,
    HubLock,
    HubRepository,
    UnresolvedError,
    name_of,
    read_lock,
    write_lock,
)
from rib.data.images import DatasetSource
from rib.data.layouts import parquet
from rib.grid.grid import resolve_grid
from rib.schema.config import config_of
from rib.schema.source_entries import HF_DATASETS
from tiny.data.hub_families import HUB_FAMILIES, PATIENTS, write_split
from tiny.data.photos import GEOMETRY
from tiny.projects.project import ROOT

CATALOG = ROOT / "workflow/catalog"
each_family = pytest.mark.parametrize("family", HUB_FAMILIES)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def datasets_of(catalog, family):
    """Entries of a family that name a repository, or use the files of one that does."""
    return {
        name: dataset
        for name, dataset in catalog.datasets.items()
        if dataset.family == family and dataset.raw in catalog.hub_sources
    }


def source_of(catalog, dataset):
    """The repository, revision and split that an entry names."""
    (source,) = catalog.hub_sources[dataset.raw]
    return source


def lock_families():
    """A lock file with a made-up file for each split of the repositories."""
    repositories = {}
    for family in HUB_FAMILIES.values():
        files = []
        for split in family.domains:
            path = f"data/{split}-00000-of-00001.parquet"
            files.append(HubFile(path=path, size=9, digest=f"sha256:{'a' * 64}"))
        repository = HubRepository(
            commit=family.commit, licence="other", gated=False, files=tuple(files)
        )
        repositories[name_of(family.repo, family.commit)] = repository
    write_lock(LOCK, HubLock(models={}, datasets=repositories))


def split_of(source):
    """The split whose files an entry names: train of data/train-*.parquet."""
    (pattern,) = source["files"]
    return pattern.removeprefix("data/").removesuffix("-*.parquet")


def grid_of(catalog, family, **choices):
    choices = {"family": family, **choices}
    return resolve_grid(config_of(choices, "config.yaml"), catalog)


def test_families_of_the_hub_are_those_of_the_tests(catalog):
    families = {catalog.datasets[name].family for name in catalog.hub_sources}
    assert families == set(HUB_FAMILIES)


@each_family
def test_a_family_with_its_lock_is_a_grid(family):
    catalog = Catalog([CATALOG])
    lock_families()
    grid = grid_of(catalog, family)
    assert list(grid.datasets) == list(datasets_of(catalog, family))
    assert all(len(dataset.archives) == 1 for dataset in grid.datasets.values())
    reference = grid.reference.dataset
    assert reference.role == "in_distribution" and reference.name not in grid.ood
    for target in grid.targets:
        assert len(set(grid.ood) - {target}) >= 2, "RI is over several other domains"
    for model in grid.models:
        assert grid.head(model) == "fitted"
    assert grid.family.limits


@each_family
def test_every_model_that_lists_a_family_has_a_head_for_it(family):
    catalog = Catalog([CATALOG])
    lock_families()
    models = grid_of(catalog, family, models="all").models
    assert set(catalog.families[family].defaults.models) < set(models)


@each_family
def test_domains_of_a_family_are_disjoint_rows_of_one_commit(catalog, family):
    datasets = datasets_of(catalog, family).values()
    sources = [source_of(catalog, dataset) for dataset in datasets]
    commits = {(source["kind"], source["repo"], source["revision"]) for source in sources}
    hub_family = HUB_FAMILIES[family]
    assert commits == {(HF_DATASETS, hub_family.repo, hub_family.commit)}
    domains = []
    for dataset, source in zip(datasets, sources, strict=True):
        ((column, domain),) = dataset.settings["where"].items()
        assert column == hub_family.domain
        assert domain in hub_family.domains[split_of(source)]
        domains.append(domain)
    known_domains = itertools.chain(*hub_family.domains.values())
    assert len(set(domains)) == len(domains) and set(domains) == set(known_domains)


@each_family
def test_entries_read_each_domain_of_a_repository_with_these_columns(catalog, family, tmp_path):
    """With as many images of each domain as no other one has, so that none is taken for another."""
    hub_family = HUB_FAMILIES[family]
    domains = dict.fromkeys(itertools.chain(*hub_family.domains.values()))
    images = {domain: number for number, domain in enumerate(domains, start=1)}
    files = {split: write_split(tmp_path, family, split, images) for split in hub_family.domains}
    rows = []
    for dataset in datasets_of(catalog, family).values():
        split = split_of(source_of(catalog, dataset))
        space = catalog.label_space(dataset)
        source = DatasetSource(dataset.name, [files[split]], space, GEOMETRY)
        items = list(parquet.items(source, **dataset.settings))
        labels = Counter(item.label for item in items)
        expected = images[dataset.settings["where"][hub_family.domain]]
        assert labels == dict.fromkeys(range(len(space.keys)), expected)
        rows += [f"{split}/{item.image_id}" for item in items]
        objects = {item.object_id for item in items}
        if dataset.settings.get("objects") is None:
            assert len(objects) == len(items)
        else:
            assert objects <= {f"{dataset.name}/{patient}" for patient in range(PATIENTS)}
    assert len(set(rows)) == len(rows), "no photo is in two domains"


@each_family
def test_a_class_file_lists_the_labels_in_the_order_of_their_numbers(catalog, family):
    space = catalog.family_label_space(family)
    assert list(space.keys) == sorted(space.keys)
    number_of_classes = {"officehome": 65, "camelyon17": 2}
    assert space.num_classes == len(space.keys) == number_of_classes[family]
    for key, name in zip(space.keys, space.names, strict=True):
        spelling = key.replace("tumor", "tumour").replace("non-", "no ").replace("_", " ")
        assert name.lower() == spelling.lower()
    assert len(set(space.names)) == len(space.names)


@each_family
def test_nothing_that_nobody_has_fetched_is_stated_as_exact(catalog, family):
    """No digest, no size, and no number of images at which preparation would fail."""
    assert not read_lock(CATALOG / LOCK).datasets or all(
        dataset.fetched for dataset in datasets_of(catalog, family).values()
    )
    for dataset in datasets_of(catalog, family).values():
        assert not dataset.fetched and dataset.images is None
        source = source_of(catalog, dataset)
        assert not {"digest", "size"} & set(source)


# Without a lock


@each_family
def test_without_lock_a_family_stops_with_a_sentence(family, monkeypatch):
    """It names the entry, says that nobody has fetched it, and which command resolves it."""
    monkeypatch.setattr(HfApi, "dataset_info", None)  # nothing asks the hub
    catalog = Catalog([CATALOG])
    with pytest.raises(UnresolvedError) as error:
        grid_of(catalog, family)
    message = str(error.value)
    first = next(iter(datasets_of(catalog, family)))
    assert message.startswith(f"datasets.yaml, {first} (not yet fetched by us): '{HF_DATASETS}:")
    assert "`rib lock`" in message and "\n" not in message
    assert not Path(LOCK).exists()


def test_other_families_need_no_lock_of_these():
    grid = grid_of(Catalog([CATALOG]), "imagenet")
    assert not set(grid.datasets) & set(grid.catalog.hub_sources)
