"""Models by name through the workflow.

They are resolved once, then without the network; fetched, converted and planned.
"""

import json
import os
import re
import shlex
import subprocess
import sys

import open_clip
import pytest
import safetensors.torch
import timm
import torch
import yaml
from timm.models import get_pretrained_cfg

from rib.base.files import read_json
from rib.catalog.hub_names import LOCK, read_lock
from rib.models.network import load
from tiny.models.texts import words
from tiny.projects.project import ROOT, jobs
from tiny.servers.hub import COMMIT, Repository, environment, served

pytestmark = pytest.mark.thorough

# Of 2023 to 2026, of ten families of architectures.
NAMES = [
    "timm/vit_base_patch14_reg4_dinov2.lvd142m",
    "timm/vit_small_patch16_dinov3.lvd1689m",
    "timm/convnextv2_base.fcmae_ft_in22k_in1k",
    "timm/eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
    "timm/aimv2_large_patch14_224.apple_pt",
    "timm/vit_pe_core_base_patch16_224.fb",
    "open_clip/ViT-B-16-SigLIP2/webli",
    "open_clip/MobileCLIP2-B/dfndr2b",
    "open_clip/PE-Core-B-16/meta",
    "hf-hub:owner/net",
]
OFFLINE = {"HF_HUB_OFFLINE": "1"}
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {
        **{"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
        **{"hf_tokenizer_name": "owner/words", "pool_type": "last"},
    },
}


def of_timm(folder, **more):
    """Files of a repository that timm has written."""
    torch.manual_seed(0)
    timm.models.save_for_hf(
        timm.create_model("test_vit", num_classes=1000, **more), folder, safe_serialization=True
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clip_files():
    """Files of a repository with an open_clip model of its own, and the model."""
    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        **{key: dict(v) if isinstance(v, dict) else v for key, v in CLIP.items()}
    ).eval()
    config = {
        "model_cfg": CLIP,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    }
    weights = safetensors.torch.save(
        {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    )
    return {
        "open_clip_config.json": json.dumps(config).encode(),
        "open_clip_model.safetensors": weights,
    }, model


@pytest.fixture
def repositories(tmp_path):
    """What the hub lists of all names; only small networks have files."""
    found = {"owner/net": Repository(of_timm(tmp_path / "net")), "owner/words": Repository(words())}
    found["owner/clip"] = Repository(clip_files()[0], licence="cc-by-nc-4.0")
    found["owner/closed"] = Repository({"config.json": b"{}"}, gated=True)
    for name in NAMES:
        if name.startswith("timm/"):
            found[get_pretrained_cfg(name[5:]).hf_hub_id] = Repository(
                sizes={"model.safetensors": 350_000_000}
            )
        elif name.startswith("open_clip/"):
            repo = open_clip.pretrained.get_pretrained_cfg(*name.split("/")[1:])["hf_hub"].rstrip(
                "/"
            )
            own = {
                "open_clip_model.safetensors": 1_500_000_000,
                "tokenizer.json": 34_000_000,
                "tokenizer_config.json": 99,
            }
            found[repo] = Repository(sizes=own, licence="apache-2.0")
    found["timm/vit_small_patch16_dinov3.lvd1689m"].gated = True
    return found


def test_a_dry_run_with_an_unresolved_name_asks_and_writes_nothing(project, repositories, tmp_path):
    """The first dry-run writes what Snakemake itself keeps; the second one reads the name."""
    project.snakemake("-n")
    before = project.state()
    with served(repositories) as hub:
        variables = environment(hub, tmp_path / "hf")
        config = ("models=['hf-hub:owner/net']",)
        printed = project.snakemake("-n", config=config, check=False, **variables)
        planned = project.rib("plan", config=config, check=False, **variables)
        assert not hub.asked
    for text in (printed, planned):
        assert "'hf-hub:owner/net'" in text and "`rib lock`" in text
        assert "Traceback (most" not in text
    assert project.state() == before


def test_ten_names_are_resolved_once_and_then_need_no_hub(project, repositories, tmp_path):
    project.family = "imagenet"
    chosen = (f"models={json.dumps(NAMES)}", "targets=[imagenet_r]", "methods=[ft]")
    with served(repositories) as hub:
        first = project.rib("lock", config=chosen, **environment(hub, tmp_path / "hf"))
        assert len(hub.asked) >= len(NAMES)
    assert (
        "'vit_small_patch16_dinov3.lvd1689m' is gated" in first
        and "non-commercial use only (cc-by-nc-4.0)" in first
    )
    again = project.snakemake("-n", config=chosen, **OFFLINE)
    assert jobs(again)["convert_model"] == len(NAMES)
    lock = read_lock(project.folder / LOCK).models
    assert sorted(lock) == sorted(NAMES) and {
        facts["source"]["revision"] for facts in lock.values()
    } == {COMMIT}
    siglip = lock["open_clip/ViT-B-16-SigLIP2/webli"]
    assert [part["path"] for part in siglip["tokenizer"]] == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert siglip["preprocessing"]["crop_mode"] == "squash" and siglip["head"] == "zero_shot"
    assert {name for name in NAMES if lock[name]["head"] == "published"} == {
        NAMES[2],
        NAMES[3],
        "hf-hub:owner/net",
    }
    plan = project.rib("plan", config=chosen, **OFFLINE)
    assert "vit_small_patch16_dinov3.lvd1689m: 350MB, dinov3-license, gated" in plan
    assert "ViT-B-16-SigLIP2.webli: 1.50GB, apache-2.0" in plan
    git = subprocess.run(["git", "check-ignore", LOCK], cwd=ROOT)
    assert git.returncode == 1  # it is tracked


def test_the_config_of_datacomp_is_planned_once_its_names_are_looked_up(project, tmp_path):
    project.family = "imagenet"
    config = ("--configfile", "workflow/configs/datacomp.yaml")
    chosen = yaml.safe_load((project.folder / config[1]).read_text())
    repositories = {}
    for name in chosen["models"]:
        _, architecture, tag = name.split("/")
        record = open_clip.get_pretrained_cfg(architecture, tag)
        weights = Repository(sizes={"open_clip_model.safetensors": 605_000_000})
        repositories[record["hf_hub"].rstrip("/")] = weights
    with served(repositories) as hub:
        project.rib("lock", *config, **environment(hub, tmp_path / "hf"))
    locked = read_lock(project.folder / LOCK).models
    assert sorted(locked) == sorted(chosen["models"])
    assert {facts["head"] for facts in locked.values()} == {"zero_shot"}
    planned = jobs(project.snakemake("-n", *config, **OFFLINE))
    assert planned["finetune"] == len(chosen["models"]) * len(chosen["targets"])
    assert "ViT-B-16.datacomp_xl_s13b_b90k: 605MB" in project.rib("plan", *config, **OFFLINE)


def test_the_pages_examples_are_planned(project, repositories, tmp_path):
    """Commands and the entry of docs/adding.md."""
    text = re.search(
        r"^## A model\n(.*?)(?=^## )", (ROOT / "docs/adding.md").read_text(), re.S | re.M
    )[1]
    commands = re.findall(r"^(?:snakemake|rib) .*$", text, re.M)
    of_timm(project.folder / "own/networks/mine", img_size=96)
    (project.folder / "own/models.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    choice = "--config family=imagenet catalog=own models=dinov2_b14"
    commands += [f"rib lock {choice}", f"snakemake -n {choice}"]
    with served(repositories) as hub:
        variables = environment(hub, tmp_path / "hf")
        for command in commands:
            program, *words = shlex.split(command)
            module = {"rib": "rib.commands", "snakemake": "snakemake"}[program]
            printed = project.run(
                *(sys.executable, "-m", module, *words, "targets=default"),
                PYTHONPATH=str(project.folder / "workflow/lib"),
                **variables,
            )
            if program == "snakemake":
                assert jobs(printed)["convert_model"]
    assert len(commands) == 6 and len(read_lock(project.folder / LOCK).models) == 3


@pytest.mark.slow
def test_networks_of_hub_and_folder_are_fetched_and_converted(project, repositories, tmp_path):
    """The zero-shot head is made offline, with the tokenizer that was fetched with the weights."""
    of_timm(project.folder / "networks/mine", img_size=32)
    chosen = (
        "models=[tiny_cnn, 'local-dir:networks/mine', 'hf-hub:owner/net', 'hf-hub:owner/clip']",
        "image_size=32",
    )
    files = [
        f"results/tiny/models/{name}/manifest.json" for name in ("mine", "owner.net", "owner.clip")
    ]
    fetched = [
        "mine/mine.safetensors",
        "owner.net/owner.net.safetensors",
        "owner.clip/owner.clip.safetensors",
    ]
    fetched += ["owner.clip/tokenizer.json", "owner.clip/tokenizer_config.json"]
    with served(repositories) as hub:
        project.rib("lock", config=chosen, **environment(hub, tmp_path / "hf"))
        # In a new process, since huggingface_hub reads the hub's address when it is imported.
        project.run(
            *(sys.executable, "-m", "snakemake", *(f"data/raw/{file}" for file in fetched)),
            *("--config", "family=tiny", "catalog=mine", *chosen),
            **environment(hub, tmp_path / "hf"),
        )
    project.snakemake(*files, config=chosen, **OFFLINE)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.inference_mode():
        network, facts = load(project.folder / "results/tiny/models/mine", torch.device("cpu"))
        published = timm.create_model(
            f"local-dir:{project.folder / 'networks/mine'}", pretrained=True
        ).eval()
        torch.testing.assert_close(network(images), published(images))
        # The repository's network is for 160 px; timm resizes its position embeddings.
        network = load(project.folder / "results/tiny/models/owner.net", torch.device("cpu"))[0]
        folder = project.folder / "fetched"
        folder.mkdir()
        for name, data in repositories["owner/net"].files.items():
            (folder / name).write_bytes(data)
        published = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=32).eval()
        torch.testing.assert_close(network(images), published(images))
        clip, (network, facts) = (
            clip_files()[1],
            load(project.folder / "results/tiny/models/owner.clip", torch.device("cpu")),
        )
        for name, data in words().items():
            (folder / name).write_bytes(data)
        (folder / "open_clip_config.json").write_bytes(
            repositories["owner/clip"].files["open_clip_config.json"]
        )
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        names, templates = open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
        head = open_clip.build_zero_shot_classifier(clip, tokenizer, names, templates)
        expected = clip.logit_scale.exp() * clip.encode_image(images, normalize=True) @ head
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    assert facts["head"]["from"] == "zero_shot" and facts["licence"] == "cc-by-nc-4.0"


WRITE_FACTS = """
import sys
from pathlib import Path
from rib.base.files import write_json
from rib.models.records import describe

write_json(Path(sys.argv[1]), describe(sys.argv[2:]))
"""


def test_a_model_of_the_hub_has_the_configuration_of_its_own_commit(tmp_path):
    """The branch main may have gone on to another architecture since."""
    # given: a hub with two commits of a repository, for networks of 64 and of 32 pixels
    earlier = "1" * 40
    repository = Repository(
        of_timm(tmp_path / "new", img_size=32),
        earlier={earlier: of_timm(tmp_path / "old", img_size=64)},
    )
    names = ["hf-hub:owner/net", f"hf-hub:owner/net@{earlier}"]
    # when: in a process of its own, since the client reads the hub's address when it is imported
    with served({"owner/net": repository}) as hub:
        subprocess.run(
            [sys.executable, "-c", WRITE_FACTS, tmp_path / "facts.json", *names],
            env={
                **os.environ,
                **environment(hub, tmp_path / "hf"),
                "PYTHONPATH": str(ROOT / "workflow/lib"),
            },
            check=True,
        )
    # then
    facts_by_name = read_json(tmp_path / "facts.json")
    for name, commit, side in zip(names, (COMMIT, earlier), (32, 64), strict=True):
        facts = facts_by_name[name]
        assert facts["source"]["revision"] == commit
        assert facts["preprocessing"]["input_size"] == side
        assert facts["arguments"]["img_size"] == [side, side]


def test_a_name_of_an_entry_is_that_entry_pinned(project, tmp_path):
    """Records of the shipped catalogue state no commit.

    A model that is chosen by its name gets one.
    """
    project.family = "imagenet"
    repository = Repository(sizes={"model.safetensors": 100_000_000})
    chosen = ("models='timm/resnet50.a1_in1k'", "targets=[imagenet_r]", "methods=[ft]")
    with served({"timm/resnet50.a1_in1k": repository}) as hub:
        project.rib("lock", config=chosen, **environment(hub, tmp_path / "hf"))
    source = read_lock(project.folder / LOCK).models["timm/resnet50.a1_in1k"]["source"]
    first = project.snakemake("-n", config=chosen, **OFFLINE)
    assert "resnet50.a1_in1k" in first and source["revision"] == COMMIT
    assert jobs(first) == jobs(
        project.snakemake("-n", config=("models=resnet50.a1_in1k", *chosen[1:]), **OFFLINE)
    )
    project.snakemake("-n", config=("models=[resnet18.a1_in1k]", *chosen[1:]), **OFFLINE)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf-hub:nobody/none", "no such repository"),
        ("hf-hub:owner/words", "no config.json of an architecture of timm"),
        ("hf-hub:owner/net@other", "no such commit"),
        ("hf-hub:owner/closed", "it is gated"),
    ],
)
def test_a_name_that_cannot_be_resolved_is_a_sentence_and_leaves_no_lock(
    project, repositories, tmp_path, name, said
):
    with served(repositories) as hub:
        settings = environment(hub, tmp_path / "hf")
        config = (f"models=['hf-hub:owner/net', '{name}']",)
        printed = project.rib("lock", config=config, check=False, **settings)
    assert "config, models: " in printed and name in printed and said in printed
    assert "Traceback (most" not in printed
    assert not (project.folder / LOCK).exists()


def test_a_name_without_lock_and_hub_is_a_sentence(project):
    config = ("models=['hf-hub:owner/net']",)
    printed = project.rib("lock", config=config, check=False, **OFFLINE)
    assert "'hf-hub:owner/net': the hub can't be reached" in printed
