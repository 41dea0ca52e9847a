"""Methods that train with texts, on a small open_clip model.

They are run through the workflow and the Python API.
"""

import pytest
import safetensors.torch
import torch
import yaml

import rib
from rib.base.files import read_json, sha256
from rib.models.network import create
from tiny.project import jobs, methods
from tiny.texts import words

pytestmark = pytest.mark.thorough

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {
        **{"context_length": 12, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1},
        **{"hf_tokenizer_name": "owner/words", "pool_type": "last"},
    },
}
CHOICES = ("models=[clip]", "targets=[red]", "datasets=[red,green]", "image_size=32")
RUN = "results/tiny/paper/finetune/clip/red/flyp/all/0"


@pytest.fixture
def with_clip(project):
    """The tiny project with a model of open_clip and its tokenizer."""
    archives, entries = project.folder / "mine/archives", project.folder / "mine/models.yaml"
    torch.manual_seed(0)
    state = create("open_clip", "tiny", {"model_cfg": CONFIG}).state_dict()
    files = {"clip.safetensors": safetensors.torch.save(state), **words()}
    for name, data in files.items():
        (archives / name).write_bytes(data)
    sources = [
        {
            "kind": "file",
            "path": str(archives / name),
            "file": name,
            "digest": f"sha256:{sha256(archives / name)}",
        }
        for name in files
    ]
    known = yaml.safe_load(entries.read_text())
    own = {
        "library": "open_clip",
        "architecture": "tiny",
        "arguments": {"model_cfg": CONFIG},
        "head": "zero_shot",
    }
    own |= {"label": "CLIP", "style": {"colour": "#123456", "marker": "x"}}
    own |= {"source": sources[0], "tokenizer": sources[1:], "weights": {}}
    own["preprocessing"] = {**known["tiny_vit"]["preprocessing"], "input_size": 32}
    known["clip"] = {**known["tiny_vit"], **own}
    entries.write_text(yaml.safe_dump(known))
    return project


def test_flyp_and_lipsum_ft_through_the_workflow(with_clip):
    """Towers are stored only for them; what is evaluated is the zero-shot classifier.

    The API makes the same bytes.
    """
    (group,) = with_clip.grid(*CHOICES[1:]).groups_of("red")
    rows = [
        f"results/tiny/paper/evaluate/clip/red/{name}/all/0/{group}.parquet"
        for name in ("flyp", "lipsum_ft")
    ]
    both = (*CHOICES, "methods=[flyp,lipsum_ft]")
    planned = with_clip.planned(*rows, config=both)
    assert [planned[rule] for rule in ("convert_model", "store_text", "finetune")] == [1, 1, 2]
    with_clip.snakemake(*rows, "--cores", "1", config=both)
    assert with_clip.planned(*rows, config=both) == {}
    text = with_clip.folder / "results/tiny/text/clip"
    tower = safetensors.torch.load_file(text / "tower.safetensors")
    archive = safetensors.torch.load_file(with_clip.folder / "mine/archives/clip.safetensors")
    assert tower.keys() == {name for name in archive if not name.startswith("visual.")}
    assert all(torch.equal(tower[name], archive[name]) for name in tower)
    tokens = safetensors.torch.load_file(text / "tokens.safetensors")
    assert tokens["prompts"].shape == (1000, 80, 12)
    assert tokens["prompts"][1, 0].tolist() == [2, 1, 3, 4, 2, 6, 1, *[0] * 5], (
        "a bad photo of a goldfish."
    )
    for name in ("flyp", "lipsum_ft"):
        stored = safetensors.torch.load_file(
            with_clip.folder / RUN.replace("flyp", name) / "checkpoint.safetensors"
        )
        assert {key.split(".")[0] for key in stored} == {"visual", "head"}
    manifest = read_json(with_clip.folder / RUN / "manifest.json")
    assert manifest["steps"] == 6 and 0 <= manifest["fit"] <= 1
    settings = {
        "catalog": str(with_clip.folder / "mine"),
        "cache": str(with_clip.folder / "cache"),
        "image_size": 32,
    }
    network = rib.finetune(rib.load_model("clip", "tiny", **settings), "red", "flyp")
    ((path),) = network.files["checkpoints"].values()
    assert path.read_bytes() == (with_clip.folder / RUN / "checkpoint.safetensors").read_bytes()


def test_models_without_a_text_tower_are_left_out_or_refused(with_clip):
    chosen = ("targets=[red]", "image_size=32", "methods=[ft,flyp]")
    printed = with_clip.listed(config=("models=[clip,tiny_cnn]", *chosen))
    assert (
        "'flyp' is not run on 'tiny_cnn': it trains with texts, but the model has no text tower"
        in printed
    )
    assert jobs(printed)["finetune"] == 3 and jobs(printed)["store_text"] == 1
    assert methods(printed, "finetune") == {"ft", "flyp"}
    assert "store_text" not in with_clip.planned(
        config=("models=[clip]", *chosen[:2], "methods=[ft]")
    )
    printed = with_clip.snakemake("-n", config=("models=[tiny_cnn]", *chosen), check=False)
    assert (
        "'flyp' cannot be run: it trains with texts, but no chosen model has a text tower"
        in printed
    )
