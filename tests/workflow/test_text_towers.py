"""Methods that train with texts, on a small open_clip model, through the workflow."""

import pytest
import safetensors.torch
import torch

from rib.base.files import read_json
from rib.grid.evaluation_groups import groups_of
from tiny.models import clip

pytestmark = pytest.mark.thorough

GRID = ("targets=[red]", "datasets=[red,green]", "image_size=32")
WITH_TEXTS = ("flyp", "lipsum_ft")
# What the tests' tokenizer makes of "a bad photo of a goldfish.", up to the context's length
TOKENS_OF_A_BAD_PHOTO = [2, 1, 3, 4, 2, 6, 1, 0, 0, 0, 0, 0]


@pytest.fixture
def with_clip(project):
    """The tiny project with a model of open_clip, clip, and its tokenizer."""
    clip.add(project.folder / "mine")
    return project


def finetuned(project, method):
    """The folder of the fine-tuning of clip on red with a method."""
    return project.folder / f"results/tiny/paper/finetune/clip/red/{method}/all/0"


def test_flyp_and_lipsum_ft_through_the_workflow(with_clip):
    """Towers are stored only for them; what is evaluated is the zero-shot classifier.

    The API makes the same bytes.
    """
    # given
    choices = ("models=[clip]", *GRID, "methods=[flyp,lipsum_ft]")
    (group,) = groups_of(with_clip.grid(*GRID), "red")
    rows = [
        f"results/tiny/paper/evaluate/clip/red/{method}/all/0/{group}.parquet"
        for method in WITH_TEXTS
    ]
    planned = with_clip.planned(*rows, config=choices)
    assert planned["convert_model"] == 1
    assert planned["store_text"] == 1
    assert planned["finetune"] == 2

    # when
    with_clip.snakemake(*rows, "--cores", "1", config=choices)

    # then nothing is left to do
    assert with_clip.planned(*rows, config=choices) == {}

    # and the text tower is that of the archive
    text = with_clip.folder / "results/tiny/text/clip"
    tower = safetensors.torch.load_file(text / "tower.safetensors")
    archived = safetensors.torch.load_file(with_clip.folder / "mine/archives/clip.safetensors")
    assert tower.keys() == {name for name in archived if not name.startswith("visual.")}
    for name, tensor in tower.items():
        assert torch.equal(tensor, archived[name]), name

    # and tokens are those of its tokenizer
    prompts = safetensors.torch.load_file(text / "tokens.safetensors")["prompts"]
    classes, templates, context_length = prompts.shape
    assert classes == 1000
    assert templates == 80
    assert context_length == clip.CONFIG["text_cfg"]["context_length"]
    goldfish = 1
    first_template = 0
    assert prompts[goldfish, first_template].tolist() == TOKENS_OF_A_BAD_PHOTO

    # and networks are stored without a text tower
    for method in WITH_TEXTS:
        checkpoint = finetuned(with_clip, method) / "checkpoint.safetensors"
        stored = safetensors.torch.load_file(checkpoint)
        assert {name.split(".")[0] for name in stored} == {"visual", "head"}
    manifest = read_json(finetuned(with_clip, "flyp") / "manifest.json")
    assert manifest["steps"] == 6
    assert 0 <= manifest["fit"] <= 1
