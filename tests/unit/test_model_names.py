"""Models by name.

What stands for them in paths, what libraries and folders record of them, what is refused.
"""

import json
import re
from pathlib import Path

import pytest
import timm
import torch

from rib.base.appearance import MODEL_COLOURS
from rib.base.errors import UserError
from rib.base.files import sha256
from rib.base.params import replaced
from rib.catalog.catalog import Catalog
from rib.catalog.hub_names import LOCK, HubLock, UnresolvedError, read_lock, write_lock
from rib.catalog.model_names import MARKERS, licence_terms, parse_name, terms, with_styles
from rib.models.lock import renew, resolve
from rib.models.records import describe
from rib.schema.fields import stated
from tiny.projects import family
from tiny.projects.project import ROOT

SHORT = {
    "timm/vit_base_patch14_reg4_dinov2.lvd142m": "vit_base_patch14_reg4_dinov2.lvd142m",
    "open_clip/ViT-B-16-SigLIP2/webli": "ViT-B-16-SigLIP2.webli",
    "hf-hub:owner/net": "owner.net",
    "hf-hub:owner/net@v1.0": "owner.net.v1.0",
    "local-dir:models/mine": "mine",
    "local-dir:~/mine/": "mine",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def catalog():
    return Catalog([ROOT / "workflow/catalog"])


@pytest.mark.parametrize("name", SHORT)
def test_the_short_name_is_one_of_a_path(name):
    assert parse_name(name).short == SHORT[name]


@pytest.mark.parametrize(
    "name",
    [
        "timm:resnet18",
        "local-dir:",
        "timm/",
        "hf-hub:a b/c",
        "timm/../x",
        "timm/a\0b",
    ],
)
def test_what_is_no_name_or_no_path_is_refused(name):
    with pytest.raises(UserError, match="config, models"):
        _ = parse_name(name).short


def saved(folder, architecture="test_vit", **more):
    """A small network as timm itself saves it."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=1000, **more)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return folder


@pytest.mark.thorough
def test_a_folder_that_timm_wrote_is_described(tmp_path):
    folder = saved(tmp_path / "net", img_size=64)
    facts = describe(["local-dir:net"])["local-dir:net"]
    assert (facts["library"], facts["architecture"], facts["type"], facts["head"]) == (
        "timm",
        "test_vit",
        "vit",
        "published",
    )
    assert facts["arguments"]["img_size"] == [64, 64] and facts["preprocessing"]["input_size"] == 64
    assert facts["parameters"] == sum(
        p.numel() for p in timm.create_model("test_vit", num_classes=1000, img_size=64).parameters()
    )
    path = folder / "model.safetensors"
    assert (
        facts["source"]["digest"] == f"sha256:{sha256(path)}"
        and facts["source"]["file"] == "net.safetensors"
    )


def edited(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.thorough
def test_a_head_for_a_thousand_other_classes_is_not_taken_for_imagenets(tmp_path):
    names = timm.data.ImageNetInfo().label_names()
    for head, labels in (
        ("published", names),
        ("none", names[::-1]),
        ("none", [f"class {n}" for n in range(1000)]),
    ):
        edited(saved(tmp_path / "net"), label_names=labels)
        assert describe(["local-dir:net"])["local-dir:net"]["head"] == head


HOSTILE = {
    "no such argument": lambda f: edited(f, model_args={"evil": 1}),
    "no such architecture": lambda f: edited(f, architecture="evil"),
    "architecture of another folder": lambda f: edited(f, architecture="local-dir:/tmp"),
    "architecture is a list": lambda f: edited(f, architecture=[1]),
    "not JSON": lambda f: (f / "config.json").write_text("{"),
    "no configuration": lambda f: (f / "config.json").unlink(),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "grey images": lambda f: edited(f, model_args={"in_chans": 1}),
    "wrong mean": lambda f: edited(f, pretrained_cfg={"mean": 3, "input_size": [3, 160, 160]}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, kind):
    HOSTILE[kind](saved(tmp_path / "net"))
    with pytest.raises(UserError, match="config, models: 'local-dir:net': "):
        describe(["local-dir:net"])


@pytest.mark.parametrize("input_size", [[], [3, "2", 2]])
def test_a_record_with_another_input_size_is_refused_in_a_sentence(tmp_path, input_size):
    folder = saved(tmp_path / "net", "test_resnet")
    config = json.loads((folder / "config.json").read_text())
    edited(folder, pretrained_cfg={**config["pretrained_cfg"], "input_size": input_size})
    with pytest.raises(UserError, match="'local-dir:net': it .*choose another"):
        describe(["local-dir:net"])


CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("vision_cfg", {"image_size": [32, 64]}),
        ("vision_cfg", {"layers": "many"}),
        ("model_cfg", None),
    ],
    ids=["not square", "wrong type", "no model"],
)
def test_an_open_clip_folder_that_cannot_be_used_is_refused(tmp_path, part, changes):
    config = {**CLIP, part: {**CLIP.get(part, {}), **changes}} if changes else None
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/open_clip_config.json").write_text(
        json.dumps({"model_cfg": config} if config else {})
    )
    (tmp_path / "clip/open_clip_model.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="config, models"):
        describe(["local-dir:clip"])


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(
        UserError,
        match=r"'timm/resnet50.a1_in2k': timm .* has no such model.*'resnet50.a1_in1k'",
    ):
        describe(["timm/resnet50.a1_in2k"])
    with pytest.raises(
        UserError,
        match=r"'open_clip/ViT-B-16-SigLIP2/web': open_clip .*'ViT-B-16-SigLIP2/webli'",
    ):
        describe(["open_clip/ViT-B-16-SigLIP2/web"])
    with pytest.raises(UserError, match=r"'timm/gcvit_base.in1k': .*no repository"):
        describe(["timm/gcvit_base.in1k"])


def test_the_activation_is_that_of_the_weights():
    """open_clip's dfn2b weights were trained with QuickGELU.

    The architecture of that name does not have it.
    """
    assert (
        describe(["open_clip/ViT-B-16/dfn2b"], ask_hub=False)["open_clip/ViT-B-16/dfn2b"][
            "architecture"
        ]
        == "ViT-B-16-quickgelu"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("timm/vit_small_patch16_dinov3.lvd1689m", "vit"),
        ("timm/swinv2_tiny_window8_256.ms_in1k", "vit"),
        ("timm/resnet50_clip.openai", "cnn"),
        ("timm/convnextv2_atto.fcmae_ft_in1k", "cnn"),
        ("timm/efficientnet_b0.ra_in1k", "cnn"),
        ("open_clip/RN50/openai", "cnn"),
        ("open_clip/convnext_base/laion400m_s13b_b51k", "cnn"),
        ("open_clip/MobileCLIP2-B/dfndr2b", "vit"),
    ],
)
def test_networks_with_self_attention_are_vits(name, kind):
    assert describe([name], ask_hub=False)[name]["type"] == kind


def test_models_without_a_style_get_one_that_no_other_has(catalog):
    models = {
        name: replaced(model, style=None) if number % 2 else model
        for number, (name, model) in enumerate(catalog.models.items())
    }
    styled = with_styles(models)
    made = [
        (styled[name].style.marker, styled[name].style.colour)
        for name, model in models.items()
        if model.style is None
    ]
    given = [(model.style.marker, model.style.colour) for model in models.values() if model.style]
    assert (
        len(set(made)) == len(made) and not set(made) & set(given) and styled == with_styles(models)
    )
    assert {marker for marker, _ in made} <= set(MARKERS) and {colour for _, colour in made} <= set(
        MODEL_COLOURS
    )


def test_gates_and_licences_are_said_before_anything_is_fetched(catalog):
    model = catalog.models["resnet50.a1_in1k"]
    assert terms([model]) == []
    said = terms(
        [
            replaced(model, gated=True),
            replaced(model, licence="cc-by-nc-4.0"),
            replaced(model, licence="apple-amlr"),
        ]
    )
    assert ["gated" in said[0], *("non-commercial" in line for line in said[1:])] == 3 * [True]


def tiny_catalog(tmp_path):
    family.make(tmp_path / "mine")
    return Catalog([ROOT / "workflow/catalog", tmp_path / "mine"])


def lock_models(catalog, *names):
    """Resolve these names, as `rib lock` does."""
    with pytest.raises(UnresolvedError) as error:
        catalog.with_models(names)
    resolve(error.value)


@pytest.mark.thorough
def test_names_that_are_one_in_paths_are_refused(tmp_path):
    saved(tmp_path / "a/net"), saved(tmp_path / "b/net")
    with pytest.raises(
        UserError, match="'local-dir:b/net' is called 'net' here, as another model is"
    ):
        names = ["local-dir:a/net", "local-dir:b/net"]
        catalog = tiny_catalog(tmp_path)
        lock_models(catalog, *names)
        Catalog(catalog.folders).with_models(names)


FACTS = {"library": "timm", "source": {"kind": "hub", "repo": "owner/net", "revision": "0" * 40}}


def test_reading_an_unresolved_name_starts_and_writes_nothing(tmp_path, monkeypatch):
    catalog = tiny_catalog(tmp_path)
    monkeypatch.setattr("subprocess.Popen", None)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnresolvedError, match="config, models: 'timm/resnet18' and 1 more .*`rib"):
        catalog.with_models(["timm/resnet18", "hf-hub:owner/net"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["timm:resnet18", "resnet/18", "timm/../x"])
def test_what_is_no_name_is_refused_before_it_is_resolved(tmp_path, name):
    with pytest.raises(UserError, match="config, models") as error:
        tiny_catalog(tmp_path).with_models([name])
    assert not isinstance(error.value, UnresolvedError)


def test_a_lock_with_another_commit_than_the_name_states_is_refused(tmp_path):
    name = f"hf-hub:owner/net@{'1' * 40}"
    write_lock(LOCK, HubLock(models={name: FACTS}, datasets={}))
    with pytest.raises(UserError, match=rf"^hub\.lock\.json: '{name}' .*{'0' * 40}.*`rib lock`"):
        tiny_catalog(tmp_path).with_models([name])


OWN_ENTRY = {"record": "hf-hub:owner/net", "families": [], "label": "Net", "pretraining": "none"}


def own_model(folder, **entry):
    """The model of one entry in a catalogue folder."""
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own/models.yaml").write_text(json.dumps({"net": {**OWN_ENTRY, **entry}}))
    return Catalog([ROOT / "workflow/catalog", folder / "own"]).models["net"]


def test_an_entry_of_another_revision_than_its_record_is_refused(tmp_path):
    write_lock(LOCK, HubLock(models={"hf-hub:owner/net": FACTS}, datasets={}))
    source = {**FACTS["source"], "revision": "1" * 40}
    with pytest.raises(UserError, match=r"own/models\.yaml, net, record: .*1111.*0000.*rib lock"):
        own_model(tmp_path, source=source)


def test_an_entry_that_states_all_facts_needs_no_lock(tmp_path, catalog):
    known = catalog.models["efficientnet_lite0"]
    source = {**FACTS["source"], "path": "model.safetensors", "file": "net.safetensors"}
    facts = {
        "library": "timm",
        "architecture": known.architecture,
        "type": "cnn",
        "licence": "MIT",
        "preprocessing": stated(known.preprocessing),
    }
    assert own_model(tmp_path, source=source, **facts).source.revision == "0" * 40
    with pytest.raises(UnresolvedError, match=r"own/models\.yaml, net, record: .*hf-hub:owner/net"):
        own_model(tmp_path, **facts)


def test_a_maintainer_renews_the_models_of_a_folder_from_the_libraries(tmp_path):
    (tmp_path / "own").mkdir()
    entry = {**OWN_ENTRY, "record": "timm/resnet18.a1_in1k"}
    (tmp_path / "own/models.yaml").write_text(json.dumps({"net": entry}))
    renew(tmp_path / "own", ask_hub=False)
    models = read_lock(tmp_path / "own" / LOCK).models
    assert models["timm/resnet18.a1_in1k"]["architecture"] == "resnet18"


@pytest.mark.parametrize(
    "text",
    ["{", '{"format_version": 1, "models": {"local-dir:net": 3}, "datasets": {}}'],
)
def test_a_damaged_lock_is_refused(tmp_path, text):
    LOCK.write_text(text)
    with pytest.raises(UserError, match=r"hub\.lock\.json"):
        tiny_catalog(tmp_path).with_models(["local-dir:net"])


@pytest.mark.thorough
def test_a_record_that_is_not_valid_leaves_no_lock(tmp_path):
    edited(
        saved(tmp_path / "net"), pretrained_cfg={"mean": [0.5, 0.5], "input_size": [3, 160, 160]}
    )
    with pytest.raises(UserError, match="config, models, local-dir:net: .*mean"):
        lock_models(tiny_catalog(tmp_path), "local-dir:net")
    assert not LOCK.exists()


@pytest.mark.thorough
def test_an_entry_adds_to_a_record(tmp_path):
    saved(tmp_path / "net")
    catalog = tiny_catalog(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/models.yaml").write_text(
        "mine: {record: 'local-dir:net', families: [tiny], label: Mine, pretraining: none}"
    )
    folders = [*catalog.folders, tmp_path / "own"]
    with pytest.raises(UnresolvedError) as error:
        _ = Catalog(folders).models
    resolve(error.value)
    own = Catalog(folders).models["mine"]
    assert (own.label, own.architecture, own.record) == ("Mine", "test_vit", "local-dir:net")
    assert re.fullmatch("sha256:[0-9a-f]{64}", own.source.digest)
    assert Path(own.source.path) == Path(
        "net/model.safetensors"
    )  # as in the lock, not below the catalogue


@pytest.mark.parametrize(
    ("licence", "asked"),
    [
        *[(text, []) for text in ("apache-2.0", "MIT (model card)", "dinov3-license", "CC-BY-4.0")],
        *[
            (text, ["non-commercial"])
            for text in ("cc-by-nc-4.0", "apple-amlr", "fair-noncommercial-research-license")
        ],
        *[
            ("CC BY-NC-SA 4.0", ["share-alike", "non-commercial"]),
            ("CC-BY-SA-4.0", ["share-alike"]),
        ],
        *[(text, ["not stated"]) for text in ("not stated", "unknown", "none")],
    ],
)
def test_what_licences_ask_for(licence, asked):
    assert licence_terms(licence) == asked
