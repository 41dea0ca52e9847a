"""Networks of configurations that others wrote.

They are built within limits of time and memory, or refused.
"""

from pathlib import Path

import psutil
import pytest
import timm

from rib.base import limited_process
from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.models import foreign_network
from rib.models.foreign_network import foreign_network_facts, network_facts
from rib.models.records import describe
from tiny.tiers import first

pytestmark = pytest.mark.thorough

MILLIONS_OF_LAYERS = 3_000_000  # on the meta device, more than an hour and 100 GB
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def timm_folder(**arguments):
    """A folder as timm writes it, whose configuration has these arguments."""
    timm.models.save_for_hf(
        timm.create_model("test_vit", num_classes=1000), "net", safe_serialization=True
    )
    config = read_json(Path("net/config.json"))
    write_json(Path("net/config.json"), config | {"model_args": arguments})


def open_clip_folder(**vision):
    """A folder with an open_clip configuration whose image tower has these settings."""
    Path("net").mkdir()
    config = CLIP | {"vision_cfg": CLIP["vision_cfg"] | vision}
    write_json(Path("net/open_clip_config.json"), {"model_cfg": config})
    Path("net/open_clip_model.safetensors").write_bytes(b"none")


# Of each limit: its name, a low value, the folder, and what the sentence says. The process imports
# the libraries, which takes seconds, so that the cases are few.
LIMITS = {
    "processor time": (
        "SECONDS",
        1,
        lambda: timm_folder(depth=MILLIONS_OF_LAYERS),
        "more than 1 s",
    ),
    "time": ("PATIENCE", 0.1, lambda: timm_folder(depth=MILLIONS_OF_LAYERS), "more than 120 s"),
    "memory": (
        "MEMORY",
        256 << 20,
        lambda: open_clip_folder(layers=MILLIONS_OF_LAYERS),
        r"more than 268MB of memory",
    ),
}


@pytest.mark.attack("weights")
@pytest.mark.parametrize("kind", first(LIMITS))
def test_a_configuration_with_millions_of_layers_meets_each_limit(monkeypatch, kind):
    limit, value, make_folder, said = LIMITS[kind]
    make_folder()
    monkeypatch.setattr(foreign_network, limit, value)
    children = psutil.Process().children()
    with pytest.raises(
        UserError,
        match=f"'local-dir:net': building its network took {said}; .*choose another model",
    ):
        describe(["local-dir:net"])
    assert psutil.Process().children() == children


@pytest.mark.thorough
@pytest.mark.attack("weights")
def test_facts_within_the_limits_are_those_of_the_network_and_the_process_knows_no_secrets(
    monkeypatch,
):
    """A network of the hub is built by library code, which may read the environment."""
    environments = []
    popen = limited_process.subprocess.Popen

    def looks(command, env, **more):
        environments.append(env)
        return popen(command, env=env, **more)

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(limited_process.subprocess, "Popen", looks)
    for of in (
        ("timm", "test_vit", {"img_size": [64, 64]}),
        ("open_clip", "net", {"model_cfg": CLIP}),
    ):
        facts = foreign_network_facts(*of)
        assert facts == network_facts(*of) and facts["type"] == "vit"
    assert len(environments) == 2
    assert not any("secret" in environment.values() for environment in environments)


@pytest.mark.thorough
@pytest.mark.attack("weights")
def test_what_cannot_be_built_is_told_by_the_process():
    with pytest.raises(UserError, match="can't be built .*correct these settings"):
        foreign_network_facts("timm", "test_vit", {"img_size": "many"})
