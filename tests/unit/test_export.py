"""Exported runs, their model cards and their terms.

timm and open_clip alone give the logits of the run's own network.
"""

import json
import re
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.catalog import Catalog
from rib.config.geometry import Geometry
from rib.config.run import ALL, Run
from rib.data.view import DatasetFiles
from rib.evaluation.export import ExportFiles, PublishedModel, export_network
from rib.evaluation.merge_files import NetworkState
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.methods import load_algorithm
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs
from rib.models.merge import Merge
from rib.models.network import create, load
from rib.models.state import network_in_state
from rib.reporting.model_card import CardFiles, CardNetwork, write_card
from tiny.architectures import ARCHITECTURES, Architecture, cases
from tiny.changed import replace
from tiny.descriptions import card_description
from tiny.project import ROOT
from tiny.training import (
    COMPUTE,
    CPU,
    MEAN,
    STD,
    TRAINING,
    VIEW,
    prepared_folder,
    random_images,
    settings_of,
    trained,
)

open_clip = pytest.importorskip("open_clip")
CATALOG = Catalog([ROOT / "workflow/catalog"])
TEMPLATES = [
    ROOT / f"workflow/lib/rib/reporting/{name}.jinja" for name in ("model_card.md", "citation")
]
LIBRARIES = {"open_clip_model.safetensors": "open_clip", "model.safetensors": "timm"}
# What others do with exports: the library alone, in a process that does not have this project on
# its path.
ALONE = """
import json, sys, torch
from safetensors.torch import load_file, save_file
{imports}
torch.set_num_threads(1)
folders, images = json.loads(sys.argv[1]), load_file(sys.argv[2])["images"]
logits = {{}}
with torch.inference_mode():
    for name, folder in folders.items():
        {code}
assert not any(name.split(".")[0] == "rib" for name in sys.modules)
save_file(logits, sys.argv[3])
"""
TIMM = """
        model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
        logits[name] = model(images)
"""
OPEN_CLIP = """
        model, _, _ = open_clip.create_model_and_transforms("local-dir:" + folder)
        head = load_file(folder + "/classification_head.safetensors")
        features = model.eval().encode_image(images, normalize=True)
        logits[name] = torch.nn.functional.linear(features, head["weight"], head["bias"])
"""
PROGRAMS = {
    "timm": ALONE.format(imports="import timm", code=TIMM.strip()),
    "open_clip": ALONE.format(imports="import open_clip", code=OPEN_CLIP.strip()),
}


class Exported:
    """A models job's folder of a small network, checkpoints of methods, and exports of runs.

    Attributes:
        network: as published; for open_clip a classifier on the image tower.
    """

    def __init__(self, folder, architecture: Architecture):
        self.folder, self.architecture = folder, architecture
        self.network, self.archive, self.checkpoints = architecture.build(num_classes=40), [], {}
        self.model_folder = folder / "model"
        self.model_folder.mkdir()
        if architecture.library == "open_clip":
            torch.manual_seed(0)
            self.whole = create(
                "open_clip", architecture.architecture, architecture.arguments
            ).eval()
            self.network.visual.load_state_dict(self.whole.visual.state_dict())
            self.archive = folder / "published.safetensors"
            safetensors.torch.save_file(contiguous(self.whole.state_dict()), self.archive)
        safetensors.torch.save_file(
            contiguous(self.network.state_dict()), self.model_folder / "weights.safetensors"
        )
        self.preprocessing = {
            "input_size": architecture.size,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
        }
        facts = {
            "name": "net",
            "library": architecture.library,
            "architecture": architecture.architecture,
        }
        facts |= {
            "num_classes": 40,
            "arguments": dict(architecture.arguments),
            "source": {"repo": "timm/net"},
        }
        facts |= {
            "preprocessing": self.preprocessing | {"mean": MEAN, "std": STD},
            "head": {"from": "published"},
        }
        write_json(self.model_folder / "model.json", facts)
        self.target = random_images(12, architecture.size)
        prepared_folder(folder / "target", self.target)
        self.images = Inputs(self.target.images, MEAN, STD, CPU)[:].contiguous()

    def store(self, method: str, tensors) -> None:
        """Keep a method's checkpoint."""
        self.checkpoints[method] = self.folder / f"{method}.safetensors"
        safetensors.torch.save_file(contiguous(tensors), self.checkpoints[method])

    def train(self, method: str) -> None:
        """Train for an epoch with an entry of the catalogue, and keep its checkpoint."""
        entry = CATALOG.methods[method]
        algorithm = load_algorithm(CATALOG.algorithm_file(entry.algorithm), settings_of(entry))
        trained(algorithm, self.network, self.target, replace(TRAINING, epochs=1))
        self.store(method, algorithm.state_delta(self.network.state_dict()))

    def perturb(self, method: str) -> None:
        """Keep a checkpoint in which every tensor of numbers differs."""
        generator = torch.Generator().manual_seed(1)
        self.store(
            method,
            {
                name: value + 0.02 * torch.randn(value.shape, generator=generator)
                for name, value in self.network.state_dict().items()
                if value.dtype == torch.float32 and not name.endswith("running_var")
            },
        )

    def export(self, weights, crop_mode="center", label_names=None):
        """Export a state; the folder."""
        folder = self.folder / "_".join(["export", *weights])
        folder.mkdir(exist_ok=True)
        names = {"weights": "model.safetensors", "config": "config.json"}
        if self.architecture.library == "open_clip":
            names = {"weights": "open_clip_model.safetensors", "config": "open_clip_config.json"}
            names["head"] = "classification_head.safetensors"
        files = ExportFiles(**{key: folder / name for key, name in names.items()})
        published = PublishedModel(self.archive, {"keys": "by_name"}, label_names)
        export_network(self.source(weights, crop_mode), published, files)
        return folder

    def source(self, weights, crop_mode="center"):
        """A state and the images of the target."""
        self.geometry = Geometry(self.architecture.size, 0.9, "bilinear", crop_mode)
        return RunOnDataset(
            run=Run("net", "target", "ft", ALL, 0),
            states=[NetworkState(None, weights)],
            checkpoints=self.checkpoints,
            model_folder=self.model_folder,
            dataset=DatasetFiles("target", self.folder / "target"),
            view=replace(VIEW, geometry=self.geometry),
            evaluation_batch_size=4,
            compute=COMPUTE,
        )

    def logits(self, weights):
        """Of the run's own network, as it is stored."""
        model = apply(load(self.model_folder, CPU)[0], weights, self.checkpoints).eval()
        with torch.inference_mode():
            return model.to(memory_format=torch.contiguous_format)(self.images)

    def logits_of_evaluation(self, weights):
        """Of the run's own network, as evaluations pass images through it."""
        inputs = Inputs(self.target.images, MEAN, STD, CPU)
        with torch.inference_mode():
            return network_in_state(self.model_folder, weights, self.checkpoints, inputs)(inputs[:])

    def alone(self, folders):
        """Of exports, by name, by their library alone in another process."""
        images, found = self.folder / "images.safetensors", self.folder / "logits.safetensors"
        safetensors.torch.save_file({"images": self.images}, images)
        given = json.dumps({name: str(folder) for name, folder in folders.items()})
        # -I: neither the current folder nor PYTHONPATH is on the path
        command = [
            sys.executable,
            "-I",
            "-c",
            PROGRAMS[self.architecture.library],
            given,
            images,
            found,
        ]
        subprocess.run(
            command, check=True, timeout=120, cwd=self.folder, env={"HF_HUB_OFFLINE": "1"}
        )
        return load_file(found)


def contiguous(tensors):
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


STATES = {
    "ft": {"ft": 1.0},
    "linear_probe": {"linear_probe": 1.0},
    "lora": {"lora": 1.0},
    "wise_ft": {"pretrained": 0.5, "ft": 0.5},
    "soup": {"pretrained": 1 / 3, "ft": 1 / 3, "ewc_released": 1 / 3},
}


@pytest.fixture(
    scope="module",
    params=[
        "resnet",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("vit", "clip_vit")),
    ],
)
def exported(request, tmp_path_factory):
    """A ViT, a CNN or a CLIP model that several methods have trained.

    With logits of the exported states, by the library alone.
    """
    found = Exported(tmp_path_factory.mktemp(request.param), ARCHITECTURES[request.param])
    for method in ("ft", "ewc_released", "linear_probe", "lora"):
        found.train(method)
    return found, found.alone({name: found.export(weights) for name, weights in STATES.items()})


@pytest.mark.thorough
@pytest.mark.parametrize("method", STATES)
def test_the_library_alone_gives_the_runs_own_logits(exported, method):
    run, alone = exported
    own = run.logits(STATES[method])
    assert torch.equal(alone[method], own)  # on the same machine, with the same format in memory
    # Evaluations have BatchNorm fused and channels last in memory, which rounds differently.
    torch.testing.assert_close(
        alone[method], run.logits_of_evaluation(STATES[method]), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(own, run.logits({"pretrained": 1.0}))


@pytest.mark.parametrize("family", cases(ARCHITECTURES))
def test_every_family_is_opened_by_its_library_with_the_runs_own_logits_and_images(
    family, tmp_path
):
    run = Exported(tmp_path, ARCHITECTURES[family])
    run.perturb("ft")
    folder = run.export({"ft": 1.0})
    shown = {"mean": MEAN, "std": STD, "interpolation": "bilinear"}
    if run.architecture.library == "timm":
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        data = timm.data.resolve_model_data_config(model)
        assert data == shown | {
            "input_size": (3, *2 * [run.architecture.size]),
            "crop_pct": 0.9,
            "crop_mode": "center",
        }
    else:
        model = open_clip.create_model(f"local-dir:{folder}").eval()
        found = model.visual.preprocess_cfg
        assert {
            key: list(part) if key in ("mean", "std") else part for key, part in found.items()
        }.items() >= (shown | {"resize_mode": "shortest"}).items()
        text = torch.arange(16).view(2, 8)
        with torch.inference_mode():
            assert torch.equal(model.encode_text(text), run.whole.encode_text(text))
    with torch.inference_mode():
        if run.architecture.library == "timm":
            logits = model(run.images)
        else:
            head = load_file(folder / "classification_head.safetensors")
            logits = F.linear(
                model.encode_image(run.images, normalize=True), head["weight"], head["bias"]
            )
    assert torch.equal(logits, run.logits({"ft": 1.0}))
    assert not torch.allclose(logits, run.logits({"pretrained": 1.0}))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    run = Exported(tmp_path_factory.mktemp("one"), ARCHITECTURES["resnet"])
    run.perturb("ft")
    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    run = Exported(tmp_path_factory.mktemp("clip"), ARCHITECTURES["clip_vit"])
    run.perturb("ft")
    return run


def test_a_second_export_has_the_same_bytes(resnet, clip):
    for run in (resnet, clip):
        first = {path.name: path.read_bytes() for path in run.export({"ft": 1.0}).iterdir()}
        assert first == {path.name: path.read_bytes() for path in run.export({"ft": 1.0}).iterdir()}
        assert not any(str(run.folder).encode() in data for data in first.values())


def test_the_configuration_has_the_familys_classes_and_no_facts_of_other_weights(resnet):
    names = [f"class {number}" for number in range(40)]
    config = json.loads((resnet.export({"ft": 1.0}, label_names=names) / "config.json").read_text())
    assert config["label_names"] == names and config["num_classes"] == 40
    record = timm.models.get_pretrained_cfg("resnet50").to_dict()
    others = [record[key] for key in ("tag", "license", "hf_hub_id", "url") if record.get(key)]
    assert others and not {json.dumps(value) for value in others} & set(
        re.findall(r'".*?"', json.dumps(config))
    )
    assert "label_names" not in json.loads((resnet.export({"ft": 1.0}) / "config.json").read_text())


def test_squashed_images_are_squashed_by_the_library_too(resnet, clip):
    assert (
        timm.data.resolve_model_data_config(
            timm.create_model(f"local-dir:{resnet.export({'ft': 1.0}, 'squash')}", pretrained=True)
        )["crop_mode"]
        == "squash"
    )
    config = json.loads((clip.export({"ft": 1.0}, "squash") / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"]["resize_mode"] == "squash"


def test_an_image_size_that_the_network_was_built_for_is_part_of_the_configuration(tmp_path):
    small = ARCHITECTURES["clip_vit"]
    run = Exported(
        tmp_path, replace(small, arguments={**small.arguments, "force_image_size": 32}, size=32)
    )
    run.perturb("ft")
    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{run.export({'ft': 1.0})}"
    )
    assert model.visual.image_size == (32, 32) and transform.transforms[0].size == 32


@pytest.mark.parametrize("which", ["resnet", "clip"])
def test_a_full_disk_is_refused_before_anything_is_written(which, request, monkeypatch):
    run, asked = request.getfixturevalue(which), []
    sizes = {path.name: path.stat().st_size for path in run.export({"ft": 1.0}).iterdir()}

    def refuse(folder, needed, what):
        asked.append(needed)
        raise UserError("the disk is full")

    monkeypatch.setattr("rib.evaluation.export.refuse_full_disk", refuse)
    with pytest.raises(UserError, match="full"):
        run.export({"pretrained": 0.0, "ft": 1.0})
    assert not any((run.folder / "export_pretrained_ft").iterdir())
    (weights,) = (size for name, size in sizes.items() if name in LIBRARIES)
    assert 0.95 * weights < asked[0] <= weights


def test_a_padding_prompt_is_refused_with_a_sentence(resnet):
    resnet.train("visual_prompt")
    with pytest.raises(UserError, match="padding prompt can't be exported"):
        resnet.export({"visual_prompt": 1.0})


def test_an_export_that_the_library_opens_otherwise_is_refused(resnet, monkeypatch):
    opened = timm.create_model

    def other(name, **arguments):
        model = opened(name, **arguments)
        if name.startswith("local-dir:"):
            model.get_classifier().bias.data += 1e-6
        return model

    monkeypatch.setattr(timm, "create_model", other)
    with pytest.raises(UserError, match="gives other logits"):
        resnet.export({"ft": 1.0})


ABOUT = {
    "training": {"ft": {"optimizer": "sgd", "weight_decay": 0.1, "layer_decay": None}},
    "family": {"title": "Toys & <games>", "limits": None},
    "ood": ["target", "other"],
    "method_settings": {"ft": {"lr": 0.1, "recipe": "paper"}, "lwf": {"weight": 2.0}},
    "reference": None,
    "confidence": 0.95,
    "models": {
        "net": {"label": "Net_1", "architecture": "n", "pretraining": "IN-1K", "licence": "MIT"}
    },
    "methods": {
        name: {"label": name, "source": f"{name}'s paper", "reference": "no"}
        for name in ("ft", "lwf")
    },
    "datasets": {"target": {"label": "A|B"}, "other": {"label": "Other"}},
}
FREE = {"label": "A|B", "licence": "MIT", "origin": "here", "publishable": True, "tuning": None}


@pytest.fixture
def card(resnet, tmp_path):
    """A function that writes a card about a target and returns it as the hub reads it."""
    key = "net,target,ft,all,0"
    lines = [
        "model,target,method,size,seed,dataset,n,accuracy",
        "net,none,pretrained,all,0,other,9,50.0",
    ]
    lines += [
        "net,none,pretrained,all,0,target,8,12.5",
        f"{key},other,9,62.5",
        f"{key},target,8,75.0",
    ]
    lines += [
        "net,target,lwf,all,0,other,9,1.0",
        "net,target,ft,all,1,other,9,2.0",
        "net,target,ft,10,0,other,9,3.0",
    ]
    (tmp_path / "accuracy.csv").write_text("\n".join(lines))
    columns = "model,target,method,size,seed,n,ri,ci_low,ci_high,conditions,fit,unfinished"
    (tmp_path / "ri.csv").write_text(f"{columns}\n{key},9,12.5,-1.25,20.0,protocol paper,80.0,1\n")
    (tmp_path / "provenance.json").write_text("")

    def made(target=FREE, weights=None, **about):
        files = CardFiles(
            accuracy=tmp_path / "accuracy.csv",
            ri=tmp_path / "ri.csv",
            records=[],
            template=TEMPLATES[0],
            citation=ROOT / "CITATION.cff",
        )
        description = card_description({**ABOUT, "read": {"target": target}, **about})
        source = resnet.source(weights or {"ft": 1.0})
        facts = read_json(resnet.model_folder / "model.json")
        preprocessing = {**facts["preprocessing"], **vars(source.view.geometry)}
        network = CardNetwork(source.run, source.weights, facts, preprocessing)
        write_card(network, description, files, tmp_path / "README.md")
        return ModelCard((tmp_path / "README.md").read_text())

    return made


def test_the_hub_reads_the_metadata(card):
    data = card().data
    assert (data.library_name, data.license, data.base_model) == ("timm", "mit", "timm/net")
    assert data.pipeline_tag == "image-classification" and data.metrics == ["accuracy"]
    results = {
        found.dataset_type: (found.dataset_name, found.metric_value) for found in data.eval_results
    }
    assert results == {"other": ("Other", 0.625), "target": ("A|B", 0.75)}


def test_the_card_says_what_was_measured_and_over_what(card):
    text = " ".join(card().text.split())
    assert "**+12.5 percentage points**, 95 % confidence interval -1.3 to +20.0" in text
    assert "do not count. Here it is over Other (9 images)" in text and "protocol paper" in text
    assert "80.0 %. Training is unfinished" in text
    assert (
        r"| A\|B (the target) | 8 | 12.5 | 75.0 |" in text and "| Other | 9 | 50.0 | 62.5 |" in text
    )
    assert (
        "| settings of ft | lr 0.1, recipe paper |" in text
        and r"Toys \& \<games\>" in text
        and r"Net\_1" in text
    )


def test_a_merge_names_its_parts_and_their_settings(card, resnet):
    resnet.perturb("lwf")
    text = card(weights={"pretrained": 0.25, "ft": 0.5, "lwf": 0.25}).text
    assert (
        "| average of | pretrained 0.25; ft 0.5; lwf 0.25 |" in text
        and "| settings of lwf | weight 2.0 |" in text
    )


def test_a_merge_over_seeds_names_its_runs_and_the_settings_of_their_method_once(card, resnet):
    resnet.perturb("lwf, seed 0")
    resnet.perturb("lwf, seed 1")
    text = card(weights={"lwf, seed 0": 0.5, "lwf, seed 1": 0.5}).text
    assert "| average of | lwf, seed 0 0.5; lwf, seed 1 0.5 |" in text
    assert text.count("| settings of lwf | weight 2.0 |") == 1


def test_a_merge_on_loading_names_what_it_merged(card, resnet):
    resnet.perturb("lwf")
    parents = {"form": "merge", "parents": ["ft", "lwf"], "run": "net/target/ft/all/0"}
    merge = Merge(
        algorithm=CATALOG.algorithm_file("ties"),
        settings={"density": 0.2, "scaling": 1.0},
        **parents,
    )
    text = card(weights=merge).text
    assert "| merged on loading | ft; lwf, and the pretrained weights |" in text
    assert "| settings of lwf | weight 2.0 |" in text


@pytest.mark.parametrize(
    ("licence", "more", "said"),
    [
        ("CC-BY-SA-4.0", {}, ["Share-alike"]),
        ("ImageNet terms (non-commercial research and education)", {}, ["Non-commercial"]),
        ("CC-BY-NC-SA-4.0", {}, ["Share-alike", "Non-commercial"]),
        ("not stated for the images", {}, ["No licence is stated"]),
        ("MIT", {"publishable": False}, ["must not be published"]),
        ("MIT", {"tuning": {"accept": "x", "terms": "It forbids tuning."}}, ["It forbids tuning."]),
        ("MIT", {}, []),
        ("the licences of Bitstream Vera, and of SAS", {}, []),
    ],
)
def test_terms_of_the_target_are_named(card, licence, more, said):
    found = card({**FREE, "licence": licence, **more})
    for words in (
        "Share-alike",
        "Non-commercial",
        "No licence is stated",
        "must not be published",
        "forbids tuning",
    ):
        assert (words in found.text) == any(words in part for part in said)
    assert found.data.license == ("mit" if licence == "MIT" else "other")


@pytest.mark.parametrize(
    ("uses", "reference", "told"),
    [("no", "memory", False), ("optional", "memory", True), ("optional", None, False)],
)
def test_the_licence_of_a_proxy_that_was_trained_on_is_named(card, uses, reference, told):
    methods = {name: {**entry, "reference": uses} for name, entry in ABOUT["methods"].items()}
    read = {"target": FREE, "memory": {**FREE, "label": "Memory", "licence": "CC-BY-SA-4.0"}}
    found = card(read=read, methods=methods, reference=reference)
    assert ("Memory" in found.text) == ("Share-alike" in found.text) == told
    assert found.data.license == ("other" if told else "mit")


def test_every_licence_of_the_catalogue_is_understood(card):
    """Share-alike and non-commercial ones by their text."""
    licences = {entry.licence for entry in CATALOG.datasets.values()}
    for licence in sorted(licences):
        text = card({**FREE, "licence": licence}).text
        assert ("Share-alike" in text) == ("-SA" in licence)
        assert ("Non-commercial" in text) == ("ImageNet" in licence)


def test_the_card_cites_the_paper_and_this_software(card):
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", card().text, re.DOTALL)
    assert {cite["title"], cite["preferred-citation"]["title"]} == set(
        re.findall(r"title   = \{(.*)\}", bibtex)
    )
