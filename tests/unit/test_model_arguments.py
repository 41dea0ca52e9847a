"""Arguments of models.

Those that change an architecture are passed on, those that may load something are refused.
"""

from pathlib import Path

import open_clip
import pytest
import timm
import torch
import yaml

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.catalog.catalog import Catalog
from rib.catalog.hub_names import LOCK, HubLock, UnresolvedError, write_lock
from rib.models.lock import resolve
from rib.models.network import build, load
from rib.models.records import describe
from rib.models.weights import with_weights
from rib.schema.model_arguments import check_arguments
from rib.training.training_state import TrainingState
from tiny.models.architectures import ARCHITECTURES
from tiny.projects.project import ROOT

CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def clip(section, **changes):
    return {"model_cfg": CLIP | {section: CLIP[section] | changes}}


# Arguments by what they would do, and the key that the sentence must name.
TIMM = {
    "weights of a file": ({"checkpoint_path": "/tmp/other.pth"}, "checkpoint_path"),
    "a folder of weights": ({"cache_dir": "/tmp"}, "cache_dir"),
    "other pretrained weights": ({"pretrained": True}, "pretrained"),
    "a configuration with a file": (
        {"pretrained_cfg": {"file": "/tmp/other.pth"}},
        "pretrained_cfg",
    ),
    "no classifier": ({"features_only": True}, "features_only"),
    "a path as a value": ({"global_pool": "/tmp/other.pth"}, "global_pool"),
    "an address in a list": ({"depths": [1, "http://127.0.0.1/other"]}, "depths"),
    "a mapping as a value": ({"norm_layer": {"file": "other"}}, "norm_layer"),
    "a name of a repository": ({"norm_layer": "hf-hub:owner/net"}, "norm_layer"),
    "a head with absurdly many outputs": ({"num_classes": 10**9}, "num_classes"),
}
OPEN_CLIP = {
    "weights of an image tower": ({"pretrained_image_path": "other.pth"}, "pretrained_image_path"),
    "pretrained weights": ({"pretrained": "openai"}, "pretrained"),
    "unsafe loading": ({"weights_only": False}, "weights_only"),
    "an image tower of the hub": (
        clip("vision_cfg", timm_model_name="hf-hub:owner/net"),
        "timm_model_name",
    ),
    "a pretrained image tower": (
        clip("vision_cfg", timm_model_pretrained=True),
        "timm_model_pretrained",
    ),
    "a text tower of the hub": (clip("text_cfg", hf_model_name="owner/net"), "hf_model_name"),
    "a tokenizer that may be code": (
        clip("text_cfg", tokenizer_kwargs={"trust_remote_code": True}),
        "trust_remote_code",
    ),
    "a path as a tokenizer": (
        clip("text_cfg", hf_tokenizer_name="/tmp/other"),
        "hf_tokenizer_name",
    ),
    "a list in place of a tower": ({"model_cfg": CLIP | {"text_cfg": ["/tmp"]}}, "text_cfg"),
}
CASES = [("timm", *case) for case in TIMM.values()] + [
    ("open_clip", *case) for case in OPEN_CLIP.values()
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def entry(library, arguments):
    """An entry of models.yaml with these arguments."""
    half = [0.5, 0.5, 0.5]
    return {
        "families": ["emoji"],
        "label": "Net",
        "type": "vit",
        "pretraining": "none",
        "library": library,
        "architecture": "test_vit" if library == "timm" else "ViT-B-32",
        "arguments": arguments,
        "preprocessing": {
            "input_size": 64,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": half,
            "std": half,
        },
        "licence": "MIT",
        "source": {
            "kind": "file",
            "path": "w.safetensors",
            "file": "w.safetensors",
            "digest": f"sha256:{'0' * 64}",
        },
    }


def own_catalog(models):
    Path("own").mkdir(exist_ok=True)
    Path("own/models.yaml").write_text(yaml.safe_dump(models))
    return Catalog([ROOT / "workflow/catalog", Path("own")])


@pytest.mark.parametrize(("library", "arguments", "key"), CASES, ids=[*TIMM, *OPEN_CLIP])
def test_the_catalogue_refuses_an_argument_that_may_load_something(library, arguments, key):
    catalog = own_catalog({"net": entry(library, arguments)})
    with pytest.raises(UserError, match=rf"own/models\.yaml, net: .*{key}.*(remove|give)"):
        _ = catalog.models


LOADING = {"checkpoint_path": "/tmp/other.pth"}


def test_the_lock_refuses_an_argument_that_may_load_something():
    name = "hf-hub:owner/net"
    write_lock(LOCK, HubLock(models={name: entry("timm", LOADING)}, datasets={}))
    with pytest.raises(UserError, match=r"hub\.lock\.json, owner\.net: .*checkpoint_path"):
        own_catalog({}).with_models([name])


@pytest.mark.parametrize(
    ("file", "config", "key"),
    [
        (
            "config.json",
            {
                "architecture": "test_vit",
                "model_args": LOADING,
                "pretrained_cfg": {"input_size": [3, 160, 160]},
            },
            "checkpoint_path",
        ),
        (
            "open_clip_config.json",
            clip("text_cfg", hf_model_name="owner/net"),
            "hf_model_name",
        ),
    ],
    ids=["timm", "open_clip"],
)
def test_a_configuration_of_a_folder_refuses_it(file, config, key):
    Path("net").mkdir()
    write_json(Path("net", file), config)
    with pytest.raises(UserError, match=f"'local-dir:net': its .*config.json: .*{key}"):
        describe(["local-dir:net"])


@pytest.mark.parametrize(
    ("library", "architecture", "arguments", "key"),
    [
        ("timm", "test_vit", LOADING, "checkpoint_path"),
        ("open_clip", "ViT-B-32", {"pretrained": "openai"}, "pretrained"),
    ],
)
def test_no_network_is_built_with_it_whatever_asks(library, architecture, arguments, key):
    with pytest.raises(UserError, match=f"{key}.*(remove|give)"):
        build(library, architecture, arguments=arguments)
    with pytest.raises(UserError, match=f"^net: .*{key}.*(remove|give)"):
        with_weights({"a": torch.zeros(1)}, library, architecture, arguments, "by_name", "net")


def test_a_model_json_that_somebody_changed_is_named():
    facts = {"library": "timm", "architecture": "test_vit", "num_classes": 10}
    write_json(Path("model.json"), facts | {"arguments": LOADING})
    with pytest.raises(UserError, match=r"model\.json: .*checkpoint_path.*remove"):
        load(Path(), torch.device("cpu"))


@pytest.mark.thorough
def test_a_pretrained_tower_of_a_configuration_is_not_loaded():
    Path("net").mkdir()
    write_json(Path("net/open_clip_config.json"), clip("vision_cfg", timm_model_pretrained=True))
    Path("net/open_clip_model.safetensors").write_bytes(b"none")
    facts = describe(["local-dir:net"])["local-dir:net"]
    assert facts["arguments"]["model_cfg"]["vision_cfg"]["timm_model_pretrained"] is False


USUAL = {
    "size of the input": {"img_size": [384, 384], "dynamic_img_size": True},
    "rates": {"drop_rate": 0.1, "drop_path_rate": 0.2, "proj_drop_rate": 0},
    "layers by name": {"act_layer": "quick_gelu", "norm_layer": "layernorm2d", "aa_layer": "avg"},
    "pooling": {"global_pool": "", "class_token": False, "reg_tokens": 4, "fc_norm": None},
    "numbers of layers": {"depths": [3, 3, 27, 3], "dims": (192, 384, 768, 1536), "depth": 40},
    "Swin's windows": {"window_size": [16, 16], "pretrained_window_sizes": [12, 12, 12, 6]},
    "layers of layers": {"depth": [[1, 3, 1], [1, 3, 1]], "mlp_ratio": 2.6667},
    "classes": {"num_classes": 21_843, "in_chans": 3},
}


@pytest.mark.parametrize("arguments", USUAL.values(), ids=USUAL)
def test_arguments_of_an_architecture_are_taken(arguments):
    taken = own_catalog({"net": entry("timm", arguments)}).models["net"].arguments
    assert taken == {
        key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_arguments_of_the_architectures_that_users_name_are_taken(architecture):
    known = ARCHITECTURES[architecture]
    check_arguments(known.library, known.arguments, "here")


def test_each_configuration_that_open_clip_ships_is_taken_unless_it_fetches_a_tower():
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if "hf_model_name" not in config["text_cfg"]:
            check_arguments("open_clip", {"model_cfg": config}, name)


@pytest.mark.parametrize("size", [64, 96])
def test_resized_position_embeddings_and_other_types_of_numbers_are_what_the_file_says(size):
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=10, img_size=64).state_dict()
    halves = {name: tensor.half() for name, tensor in state.items()}
    network = with_weights(halves, "timm", "test_vit", {"img_size": size}, "by_name", "net")
    for name, tensor in network.state_dict().items():
        assert name == "pos_embed" or torch.equal(tensor, halves[name].float())


def test_a_damaged_state_of_a_training_is_told_without_torchs_advice():
    Path("state.pt").write_bytes(b"PK")
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    saved = TrainingState(Path("state.pt"), network, optimizer, {}, {}, {})
    with pytest.raises(UserError, match=r"state\.pt .*delete it") as refusal:
        saved.restore()
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(("key", "value"), [("crop_pct", 1e-9), ("input_size", 10**9)])
def test_images_of_absurd_sizes_are_refused_in_catalogue_and_lock(key, value):
    """Images are resized to input_size / crop_pct."""
    hostile = entry("timm", {})
    hostile["preprocessing"][key] = value
    with pytest.raises(UserError, match=rf"own/models\.yaml: .*net\.preprocessing\.{key}"):
        _ = own_catalog({"net": hostile}).models
    write_lock(LOCK, HubLock(models={"hf-hub:owner/net": hostile}, datasets={}))
    with pytest.raises(UserError, match=rf"hub\.lock\.json: .*owner\.net\.preprocessing\.{key}"):
        own_catalog({}).with_models(["hf-hub:owner/net"])


@pytest.mark.thorough
def test_a_folder_whose_images_would_be_of_an_absurd_size_is_refused_and_leaves_no_lock():
    Path("net").mkdir()
    network = timm.create_model("test_vit", num_classes=1000)
    timm.models.save_for_hf(network, Path("net"), safe_serialization=True)
    config = read_json(Path("net/config.json"))
    config["pretrained_cfg"] |= {"crop_pct": 1e-9, "test_crop_pct": 1e-9}
    write_json(Path("net/config.json"), config)
    with pytest.raises(UserError, match=r"config, models, local-dir:net: .*crop_pct"):
        resolve(UnresolvedError({"local-dir:net": "config, models"}))
    assert not LOCK.exists()
