"""Networks that this project trained and published (data/networks), and their conversion."""

import pytest
import safetensors.torch
import torch

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.grid.grid import Grid
from rib.grid.model_facts import model_facts
from rib.models.convert import convert
from rib.models.model_settings import ConversionSettings
from rib.models.network import load
from tiny.models.training import CODE, COMPUTE
from tiny.projects.grids import grid, project_catalog
from tiny.projects.project import ROOT

FOLDER = ROOT / "data/networks"
PUBLISHED = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
NAME = "fashion_cnn_1k"


@pytest.fixture(scope="module")
def fashion() -> Grid:
    """A grid of all published networks of the fashion family."""
    return grid(project_catalog(), family="fashion", models=PUBLISHED)


def converted(grid_of_networks, name, file, folder):
    """Convert a file as the network of a name; gives the folder with the model."""
    convert_with(settings_of(model_facts(grid_of_networks, name)), file, folder)
    return folder


def settings_of(facts):
    """Settings with which a network of these facts is converted."""
    return ConversionSettings(
        entry=facts,
        head="pretrained",
        num_classes=10,
        class_names=None,
        view=None,
        compute=COMPUTE,
        code=CODE,
    )


def convert_with(settings, file, folder):
    """Convert a file with settings, into a folder."""
    convert(
        archives=[file],
        reference=None,
        settings=settings,
        weights=folder / "weights.safetensors",
        description=folder / "model.json",
    )


def test_every_file_is_the_pinned_one_of_an_entry_and_listed_in_the_readme(fashion):
    readme = (FOLDER / "README.md").read_text()
    entries = project_catalog().models.items()
    assert set(PUBLISHED) == {name for name, model in entries if model.source and model.pretrain}
    for name in PUBLISHED:
        file = FOLDER / f"{name}.safetensors"
        digest = sha256(file)
        source = fashion.models[name].source
        assert (source.file, source.digest) == (file.name, f"sha256:{digest}")
        assert f"\n| `{file.name}` |" in readme


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network_is_what_is_in_the_file(fashion, tmp_path, name):
    """Its floating-point tensors are in half precision, and it has one output for each class."""
    file = FOLDER / f"{name}.safetensors"
    network, facts = load(converted(fashion, name, file, tmp_path), torch.device("cpu"))
    published = safetensors.torch.load_file(file)
    assert network.state_dict().keys() == published.keys()
    for key, tensor in network.state_dict().items():
        assert published[key].dtype in (torch.float16, torch.int64)
        assert torch.equal(tensor, published[key].to(tensor.dtype)), key
    assert facts["head"] == {"from": "pretrained"} and facts["num_classes"] == 10
    assert "path" not in facts["source"], "a moved project has the same description"


def test_a_file_that_is_not_the_pinned_one_is_refused_with_a_sentence(fashion, tmp_path):
    content = bytearray((FOLDER / f"{NAME}.safetensors").read_bytes())
    content[-1] ^= 1
    file = tmp_path / f"{NAME}.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=NAME) as error:
        converted(fashion, NAME, file, tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_recipe_of_a_published_network_does_not_decide_what_is_converted(fashion):
    """An edit of the recipe converts nothing again: the file is pinned by its digest."""
    facts = model_facts(fashion, NAME)
    assert facts["pretrain"] is None and set(facts["source"]) <= {"file", "size", "digest"}
    assert fashion.head(NAME) == "pretrained"
    assert "fashion_train" not in [dataset.name for dataset in fashion.datasets_read()]
