"""The catalogue's models against the libraries' own records.

Its published numbers are compared with what they are about.
"""

import pytest
import timm
import timm.data
import torch
from timm.models import get_pretrained_cfg

from rib.base.params import to_params
from rib.catalog.hub_names import LOCK, read_lock
from rib.catalog.published import (
    accuracies_of_testbed,
    published_accuracies,
    published_methods,
)
from rib.models.records import describe
from rib.report.rates import EVALUATE, TRAIN
from rib.schema.yaml_files import read_yaml
from tiny.projects.project import ROOT

open_clip = pytest.importorskip("open_clip")


def zoo(catalog, library):
    return [m for m in catalog.models.values() if "imagenet" in m.families and m.library == library]


@pytest.mark.thorough
def test_preprocessing_is_timms_own_record_at_224_px(catalog):
    for model in zoo(catalog, "timm"):
        record, own = get_pretrained_cfg(model.name), to_params(model.preprocessing)
        assert (record.num_classes == 0) == (model.head == "none"), model.name
        assert record is not None and model.source.repo == record.hf_hub_id, model.name
        at_test = (record.test_input_size or record.input_size)[1] == own["input_size"]
        crop = record.test_crop_pct if at_test and record.test_crop_pct else record.crop_pct
        assert own["crop_pct"] == crop and own["input_size"] == 224, model.name
        found = (own["interpolation"], *own["mean"], *own["std"])
        assert found == (record.interpolation, *record.mean, *record.std), model.name
        with torch.device("meta"):
            network = timm.create_model(model.architecture, num_classes=1000)
        assert model.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.thorough
def test_what_entries_lack_is_what_the_libraries_record(catalog, tmp_path, monkeypatch):
    """The catalogue's lock file is what `make records` writes.

    Entries agree with it wherever both speak.
    """
    monkeypatch.chdir(tmp_path)
    written = read_lock(ROOT / "workflow/catalog" / LOCK).models
    entries = {
        name: entry
        for name, entry in read_yaml(ROOT / "workflow/catalog/models.yaml").items()
        if "record" in entry
    }
    assert describe(list(written), ask_hub=False) == written
    assert {entry["record"] for entry in entries.values()} == written.keys()
    both = {
        (name, key)
        for name, entry in entries.items()
        for key in entry.keys() & written[entry["record"]].keys()
    }
    differ = {
        (name, key)
        for name, key in both
        if entries[name][key] != written[entries[name]["record"]][key]
    }
    # Licences that open_clip's records lack, and one file that is pinned by digest.
    unrecorded = {name for name, entry in entries.items() if "licence" in entry}
    assert all(written[entries[name]["record"]]["licence"] == "not stated" for name in unrecorded)
    assert differ == {(name, "licence") for name in unrecorded} | {
        ("ViT-L-14.laion2b_s32b_b82k", "source")
    }


def test_lite_entries_agree_with_timms_record_of_the_same_networks(catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        own = catalog.models[f"efficientnet_lite{number}"]
        record = describe([f"timm/{own.architecture}.in1k"], ask_hub=False)[
            f"timm/{own.architecture}.in1k"
        ]
        assert (
            to_params(own.preprocessing) == record["preprocessing"]
            and own.licence.lower() == record["licence"]
        )
        assert (own.type, own.parameters, own.head) == (
            record["type"],
            record["parameters"],
            record["head"],
        )


def test_clip_entries_are_open_clips_own_record_and_openai_has_quickgelu(catalog):
    for model in zoo(catalog, "open_clip"):
        tag = model.name.split(".", 1)[1]
        record = open_clip.pretrained.get_pretrained_cfg(model.architecture, tag)
        assert record["hf_hub"].rstrip("/") == model.source.repo, model.name
        mean = record.get("mean") or open_clip.OPENAI_DATASET_MEAN
        std = record.get("std") or open_clip.OPENAI_DATASET_STD
        assert (model.preprocessing.mean, model.preprocessing.std) == (
            list(mean),
            list(std),
        ), model.name
        quick = open_clip.get_model_config(model.architecture).get("quick_gelu", False)
        assert model.head == "zero_shot" and quick == (tag == "openai")


def test_every_published_number_is_of_a_model_and_dataset_of_the_catalogue(catalog):
    published = published_accuracies(catalog)
    keys = {(stated.model, stated.dataset, stated.image_size) for stated in published}
    assert len(published) == len(keys)
    for stated in published:
        assert stated.dataset in catalog.datasets and stated.source
        assert 0 < stated.accuracy < 100
        if stated.image_size is None:
            assert stated.model in catalog.models
    names = {stated.model for stated in published if stated.image_size is not None}
    assert len(names) == 1266
    assert all(timm.models.is_model(name.split(".")[0]) for name in names)
    assert not names & {stated.model for stated in accuracies_of_testbed(catalog)}


def test_every_published_number_of_a_method_is_of_openais_clip_on_imagenet(catalog):
    published = published_methods(catalog)
    assert {stated.target for stated in published} == {"imagenet_train"}
    assert {stated.model for stated in published} == {"ViT-B-16.openai", "ViT-B-32.openai"}
    keys = {(s.paper, s.table, s.model, s.method, s.dataset) for s in published}
    assert len(keys) == len(published) and all(s.differs and s.source for s in published)


def test_lines_are_fitted_on_models_that_saw_imagenet_1k_with_labels_alone(catalog):
    """A model's tag has what publishers say of the training data.

    Here it tells of no other pretraining and of no distillation.
    """
    for entry in catalog.models.values():
        on_1k_alone = entry.pretraining.startswith("ImageNet-1K,") and "imagenet" in entry.families
        assert entry.baseline == on_1k_alone, entry.name
    marked = [stated for stated in published_accuracies(catalog) if stated.baseline]
    assert len({stated.model for stated in marked}) == 29
    for stated in marked:
        assert stated.model not in catalog.models and stated.model.endswith("in1k")
        assert not any(word in stated.model for word in ("dist", "21k", "jft", "_adv"))


def test_the_papers_bars_are_those_of_the_default_models(catalog):
    columns = ("family", "model", "method", "ood_before", "ood_after", "source")
    rows = catalog.table("paper.csv", columns, ["ood_before", "ood_after"])
    assert [row["model"] for row in rows] == catalog.families["imagenet"].defaults.models
    assert all(
        row["family"] == "imagenet" and row["method"] in catalog.methods and row["source"]
        for row in rows
    )


def test_every_architecture_has_a_stated_speed(catalog):
    rates = (EVALUATE, TRAIN)
    rows = {
        row["architecture"]: row
        for row in catalog.table("throughput.csv", ("architecture", *rates), rates)
    }
    for model in (*zoo(catalog, "timm"), *zoo(catalog, "open_clip")):
        assert (
            float(rows[model.architecture][EVALUATE]) > float(rows[model.architecture][TRAIN]) > 0
        )
