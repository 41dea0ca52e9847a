"""Exported runs, their model cards and their terms.

timm and open_clip alone give the logits of the run's own network.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

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
from rib.catalog.catalog import Catalog
from rib.data.view import DatasetFiles
from rib.evaluation.export import export_network
from rib.evaluation.networks import NetworkState, RunNetworks
from rib.methods.base import load_algorithm
from rib.models.checkpoint import apply
from rib.models.merge import Merge
from rib.models.network import create, load
from rib.models.state import network_in_state
from rib.report.model_card import write_card
from rib.schema.geometry import Geometry
from rib.schema.run import ALL, Run
from tiny.changed import replace
from tiny.models.architectures import ARCHITECTURES, Architecture, cases
from tiny.models.training import (
    CPU,
    MEAN,
    STD,
    TRAINING,
    VIEW,
    images_of,
    prepared_folder,
    random_images,
    settings_of,
    trained,
)
from tiny.projects.descriptions import export_settings
from tiny.projects.project import ROOT

open_clip = pytest.importorskip("open_clip")
CATALOG = Catalog([ROOT / "workflow/catalog"])
CARD_TEMPLATE = ROOT / "workflow/lib/rib/report/model_card.md.jinja"
CLASSES = 40  # outputs of the networks
EXPORTED = Run("net", "target", "ft", ALL, 0)
FT = {"ft": 1.0}  # what a fine-tuned run is made of
WEIGHT_FILES = ("open_clip_model.safetensors", "model.safetensors")  # of the two libraries
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
        whole: of open_clip, image and text tower, as published.
        archive: file with the weights of `whole`; empty for timm.
        checkpoints: by method.
        target: images on which methods are trained.
        images: the same as a network takes them.
    """

    def __init__(self, folder, architecture: Architecture):
        """Build the network and write the folders of its models job and of its target."""
        self.folder = folder
        self.architecture = architecture
        self.network = architecture.build(num_classes=CLASSES)
        self.archive = []
        self.checkpoints = {}
        if architecture.library == "open_clip":
            self._publish_both_towers()
        self.model_folder = folder / "model"
        self._write_model_folder()
        self.target = random_images(12, architecture.size)
        prepared_folder(folder / "target", self.target)
        self.images = images_of(self.target, MEAN, STD)[:].contiguous()

    def _publish_both_towers(self) -> None:
        """Build a whole model of open_clip, whose image tower becomes the network's."""
        torch.manual_seed(0)
        whole = create("open_clip", self.architecture.architecture, self.architecture.arguments)
        self.whole = whole.eval()
        self.network.visual.load_state_dict(self.whole.visual.state_dict())
        self.archive = self.folder / "published.safetensors"
        safetensors.torch.save_file(contiguous(self.whole.state_dict()), self.archive)

    def _write_model_folder(self) -> None:
        """Write what a models job writes."""
        self.model_folder.mkdir()
        weights = self.model_folder / "weights.safetensors"
        safetensors.torch.save_file(contiguous(self.network.state_dict()), weights)
        facts = {
            "name": "net",
            "library": self.architecture.library,
            "architecture": self.architecture.architecture,
            "num_classes": CLASSES,
            "arguments": dict(self.architecture.arguments),
            "source": {"repo": "timm/net"},
            "preprocessing": {
                "input_size": self.architecture.size,
                "crop_pct": 0.9,
                "interpolation": "bicubic",
                "mean": MEAN,
                "std": STD,
            },
            "head": {"from": "published"},
        }
        write_json(self.model_folder / "model.json", facts)

    def store(self, method: str, tensors) -> None:
        """Keep a method's checkpoint."""
        self.checkpoints[method] = self.folder / f"{method}.safetensors"
        safetensors.torch.save_file(contiguous(tensors), self.checkpoints[method])

    def train(self, method: str) -> None:
        """Train for an epoch with an entry of the catalogue, and keep its checkpoint."""
        entry = CATALOG.methods[method]
        algorithm = load_algorithm(
            CATALOG.algorithm_file(entry.algorithm), settings_of(entry), entry.name
        )
        trained(algorithm, self.network, self.target, replace(TRAINING, epochs=1))
        self.store(method, algorithm.changed_tensors(self.network.state_dict()))

    def perturb(self, method: str) -> None:
        """Keep a checkpoint in which every tensor of numbers differs."""
        generator = torch.Generator().manual_seed(1)
        tensors = {}
        for name, value in self.network.state_dict().items():
            if value.dtype == torch.float32 and not name.endswith("running_var"):
                noise = torch.randn(value.shape, generator=generator)
                tensors[name] = value + 0.02 * noise
        self.store(method, tensors)

    def export(self, mixture, crop_mode="center", label_names=None):
        """Export a run of a mixture; gives the folder."""
        folder = self.folder / "_".join(["export", *mixture])
        folder.mkdir(exist_ok=True)
        if self.architecture.library == "open_clip":
            files = {
                "weights": folder / "open_clip_model.safetensors",
                "config": folder / "open_clip_config.json",
                "head": folder / "classification_head.safetensors",
            }
        else:
            files = {"weights": folder / "model.safetensors", "config": folder / "config.json"}
        export_network(
            run=EXPORTED,
            networks=RunNetworks(
                self.model_folder, [NetworkState("ft", None, mixture)], self.checkpoints
            ),
            target=DatasetFiles("target", self.folder / "target"),
            view=replace(VIEW, geometry=self.geometry(crop_mode)),
            archive=self.archive,
            published={"keys": "by_name"},
            label_names=label_names,
            **files,
        )
        return folder

    def geometry(self, crop_mode="center"):
        """How the images of the target are cut."""
        return Geometry(self.architecture.size, 0.9, "bilinear", crop_mode)

    def logits(self, mixture):
        """Logits of the run's own network, as it is stored."""
        pretrained, *_ = load(self.model_folder, CPU)
        model = apply(pretrained, mixture, self.checkpoints).eval()
        with torch.inference_mode():
            return model.to(memory_format=torch.contiguous_format)(self.images)

    def logits_of_evaluation(self, mixture):
        """Logits of the run's own network, as evaluations pass images through it."""
        inputs = images_of(self.target, MEAN, STD)
        model = network_in_state(self.model_folder, mixture, self.checkpoints, inputs)
        with torch.inference_mode():
            return model(inputs[:])

    def logits_by_library_alone(self, folders):
        """Logits of exports, by name, by their library alone in another process.

        Args:
            folders: of the exports, by name.
        """
        images_file = self.folder / "images.safetensors"
        logits_file = self.folder / "logits.safetensors"
        safetensors.torch.save_file({"images": self.images}, images_file)
        program = PROGRAMS[self.architecture.library]
        folders_as_json = json.dumps({name: str(folder) for name, folder in folders.items()})
        # -I: neither the current folder nor PYTHONPATH is on the path
        command = [sys.executable, "-I", "-c", program, folders_as_json, images_file, logits_file]
        offline = {"HF_HUB_OFFLINE": "1"}
        subprocess.run(command, check=True, timeout=120, cwd=self.folder, env=offline)
        return load_file(logits_file)


def contiguous(tensors):
    """Copies of tensors by name, contiguous in memory as safetensors needs them."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


STATES = {
    "ft": {"ft": 1.0},
    "linear_probe": {"linear_probe": 1.0},
    "lora": {"lora": 1.0},
    "wise_ft": {"pretrained": 0.5, "ft": 0.5},
    "soup": {"pretrained": 1 / 3, "ft": 1 / 3, "ewc_released": 1 / 3},
}


@dataclass(frozen=True)
class ExportedStates:
    """Exports of `STATES`."""

    run: Exported
    logits: dict[str, torch.Tensor]  # by state, by the library alone


@pytest.fixture(
    scope="module",
    params=[
        "resnet",
        pytest.param("vit", marks=pytest.mark.thorough),
        pytest.param("clip_vit", marks=pytest.mark.thorough),
    ],
)
def exported(request, tmp_path_factory):
    """A ViT, a CNN or a CLIP model that several methods have trained, exported in all states."""
    run = Exported(tmp_path_factory.mktemp(request.param), ARCHITECTURES[request.param])
    for method in ("ft", "ewc_released", "linear_probe", "lora"):
        run.train(method)
    folders = {name: run.export(mixture) for name, mixture in STATES.items()}
    return ExportedStates(run, run.logits_by_library_alone(folders))


@pytest.mark.thorough
@pytest.mark.parametrize("method", STATES)
def test_the_library_alone_gives_the_runs_own_logits(exported, method):
    logits = exported.logits[method]
    own_logits = exported.run.logits(STATES[method])
    pretrained_logits = exported.run.logits({"pretrained": 1.0})
    logits_of_evaluation = exported.run.logits_of_evaluation(STATES[method])
    assert torch.equal(logits, own_logits)  # on the same machine, with the same format in memory
    # Evaluations have BatchNorm fused and channels last in memory, which rounds differently.
    torch.testing.assert_close(logits, logits_of_evaluation, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(own_logits, pretrained_logits)


@pytest.mark.parametrize("family", cases(ARCHITECTURES))
def test_every_family_is_opened_by_its_library_with_the_runs_own_logits_and_images(
    family, tmp_path
):
    # given
    run = Exported(tmp_path, ARCHITECTURES[family])
    run.perturb("ft")
    # when
    folder = run.export(FT)
    # then
    if run.architecture.library == "timm":
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        size = run.architecture.size
        assert timm.data.resolve_model_data_config(model) == {
            "input_size": (3, size, size),
            "mean": MEAN,
            "std": STD,
            "interpolation": "bilinear",
            "crop_pct": 0.9,
            "crop_mode": "center",
        }
        with torch.inference_mode():
            logits = model(run.images)
    else:
        model = open_clip.create_model(f"local-dir:{folder}").eval()
        preprocessing = model.visual.preprocess_cfg
        assert list(preprocessing["mean"]) == MEAN
        assert list(preprocessing["std"]) == STD
        assert preprocessing["interpolation"] == "bilinear"
        assert preprocessing["resize_mode"] == "shortest"
        head = load_file(folder / "classification_head.safetensors")
        text = torch.arange(16).view(2, 8)
        with torch.inference_mode():
            features = model.encode_image(run.images, normalize=True)
            features_of_text = model.encode_text(text)
            published_features_of_text = run.whole.encode_text(text)
            logits = F.linear(features, head["weight"], head["bias"])
        assert torch.equal(features_of_text, published_features_of_text)
    assert torch.equal(logits, run.logits(FT))
    assert not torch.allclose(logits, run.logits({"pretrained": 1.0}))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A CNN of timm with a checkpoint of ft."""
    run = Exported(tmp_path_factory.mktemp("one"), ARCHITECTURES["resnet"])
    run.perturb("ft")
    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A model of open_clip with a checkpoint of ft."""
    run = Exported(tmp_path_factory.mktemp("clip"), ARCHITECTURES["clip_vit"])
    run.perturb("ft")
    return run


def export_bytes(run):
    """Export ft; gives the bytes of the files by name, of which there is at least one."""
    folder = run.export(FT)
    bytes_of_file = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert bytes_of_file
    return bytes_of_file


def test_a_second_export_has_the_same_bytes(resnet, clip):
    for run in (resnet, clip):
        bytes_of_first = export_bytes(run)
        bytes_of_second = export_bytes(run)
        assert bytes_of_second == bytes_of_first
        name_of_folder = str(run.folder).encode()
        for file, content in bytes_of_first.items():
            assert name_of_folder not in content, file


def test_the_configuration_has_the_familys_classes_and_no_facts_of_other_weights(resnet):
    # given
    names = [f"class {number}" for number in range(CLASSES)]
    facts_of_published_weights = timm.models.get_pretrained_cfg("resnet50").to_dict()
    # when
    config = read_json(resnet.export(FT, label_names=names) / "config.json")
    config_without_names = read_json(resnet.export(FT) / "config.json")
    # then
    assert config["label_names"] == names
    assert config["num_classes"] == CLASSES
    assert "label_names" not in config_without_names
    texts_of_config = set(re.findall(r'".*?"', json.dumps(config)))
    facts_with_a_value = 0
    for key in ("tag", "license", "hf_hub_id", "url"):
        fact = facts_of_published_weights.get(key)
        if fact:
            facts_with_a_value += 1
            assert json.dumps(fact) not in texts_of_config
    assert facts_with_a_value > 0


def test_squashed_images_are_squashed_by_the_library_too(resnet, clip):
    # when
    folder_of_timm = resnet.export(FT, "squash")
    folder_of_open_clip = clip.export(FT, "squash")
    # then
    model = timm.create_model(f"local-dir:{folder_of_timm}", pretrained=True)
    assert timm.data.resolve_model_data_config(model)["crop_mode"] == "squash"
    config = read_json(folder_of_open_clip / "open_clip_config.json")
    assert config["preprocess_cfg"]["resize_mode"] == "squash"


def test_an_image_size_that_the_network_was_built_for_is_part_of_the_configuration(tmp_path):
    # given
    clip_vit = ARCHITECTURES["clip_vit"]
    arguments = {**clip_vit.arguments, "force_image_size": 32}
    run = Exported(tmp_path, replace(clip_vit, arguments=arguments, size=32))
    run.perturb("ft")
    # when
    folder = run.export(FT)
    # then
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    resize, *_ = transform.transforms
    assert model.visual.image_size == (32, 32)
    assert resize.size == 32


@pytest.mark.parametrize("which", ["resnet", "clip"])
def test_a_full_disk_is_refused_before_anything_is_written(which, request, monkeypatch):
    # given
    run = request.getfixturevalue(which)
    exported_files = list(run.export(FT).iterdir())
    (weights,) = [path for path in exported_files if path.name in WEIGHT_FILES]
    bytes_of_weights = weights.stat().st_size
    requests_of_bytes = []

    def refuse(folder, needed, what):
        requests_of_bytes.append(needed)
        raise UserError("the disk is full")

    monkeypatch.setattr("rib.evaluation.export.refuse_full_disk", refuse)
    # then
    with pytest.raises(UserError, match="full"):
        run.export({"pretrained": 0.0, "ft": 1.0})
    assert list((run.folder / "export_pretrained_ft").iterdir()) == []
    (requested_bytes,) = requests_of_bytes
    assert 0.95 * bytes_of_weights < requested_bytes <= bytes_of_weights


def test_a_padding_prompt_is_refused_with_a_sentence(resnet):
    resnet.train("visual_prompt")
    with pytest.raises(UserError, match="padding prompt can't be exported"):
        resnet.export({"visual_prompt": 1.0})


def test_an_export_that_the_library_opens_otherwise_is_refused(resnet, monkeypatch):
    create_model = timm.create_model

    def create_another_model_of_exports(name, **arguments):
        model = create_model(name, **arguments)
        if name.startswith("local-dir:"):
            model.get_classifier().bias.data += 1e-6
        return model

    monkeypatch.setattr(timm, "create_model", create_another_model_of_exports)
    with pytest.raises(UserError, match="gives other logits"):
        resnet.export(FT)


# Model cards


ABOUT: dict[str, Any] = {
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
        "ft": {"label": "ft", "source": "ft's paper", "reference": "no"},
        "lwf": {"label": "lwf", "source": "lwf's paper", "reference": "no"},
    },
    "datasets": {"target": {"label": "A|B"}, "other": {"label": "Other"}},
}
FREE = {"label": "A|B", "licence": "MIT", "origin": "here", "publishable": True, "tuning": None}
# Of the pretrained model, of the run, and of other runs, which the card says nothing of.
ACCURACY = """\
model,target,method,size,seed,dataset,n,accuracy
net,none,pretrained,all,0,other,9,50.0
net,none,pretrained,all,0,target,8,12.5
net,target,ft,all,0,other,9,62.5
net,target,ft,all,0,target,8,75.0
net,target,lwf,all,0,other,9,1.0
net,target,ft,all,1,other,9,2.0
net,target,ft,10,0,other,9,3.0
"""
RI = """\
model,target,method,size,seed,n,ri,ci_low,ci_high,conditions,fit,underfitted
net,target,ft,all,0,9,12.5,-1.25,20.0,protocol paper,80.0,1
"""


@pytest.fixture
def card(resnet, tmp_path):
    """A function that writes a card and returns it as the hub reads it.

    It takes the entry of the target, what the run is made of, and other parts of its description.
    """
    (tmp_path / "accuracy.csv").write_text(ACCURACY)
    (tmp_path / "ri.csv").write_text(RI)
    (tmp_path / "provenance.json").write_text("")

    def write_and_read(target=FREE, mixture=FT, **about):
        facts = read_json(resnet.model_folder / "model.json")
        card_file = tmp_path / "README.md"
        write_card(
            run=EXPORTED,
            mixture=mixture,
            model=resnet.model_folder / "model.json",
            preprocessing={**facts["preprocessing"], **vars(resnet.geometry())},
            settings=export_settings({**ABOUT, "read": {"target": target}, **about}),
            accuracy=tmp_path / "accuracy.csv",
            ri=tmp_path / "ri.csv",
            records=[],
            template=CARD_TEMPLATE,
            citation=ROOT / "CITATION.cff",
            card=card_file,
        )
        return ModelCard(card_file.read_text())

    return write_and_read


def test_the_hub_reads_the_metadata(card):
    data = card().data
    assert data.library_name == "timm"
    assert data.license == "mit"
    assert data.base_model == "timm/net"
    assert data.pipeline_tag == "image-classification"
    assert data.metrics == ["accuracy"]
    result_on_dataset = {result.dataset_type: result for result in data.eval_results}
    assert result_on_dataset.keys() == {"other", "target"}
    assert result_on_dataset["other"].dataset_name == "Other"
    assert result_on_dataset["other"].metric_value == 0.625
    assert result_on_dataset["target"].dataset_name == "A|B"
    assert result_on_dataset["target"].metric_value == 0.75


def test_the_card_says_what_was_measured_and_over_what(card):
    text = " ".join(card().text.split())
    for said in ("+12.5", "-1.3 to +20.0", "over Other (9 images)", "protocol paper"):
        assert said in text
    assert "80.0 %" in text
    assert "is underfitted" in text
    assert r"| A\|B (the target) | 8 | 12.5 | 75.0 |" in text
    assert "| Other | 9 | 50.0 | 62.5 |" in text
    assert "| settings of ft | lr 0.1, recipe paper |" in text
    assert r"Toys \& \<games\>" in text
    assert r"Net\_1" in text


def test_a_merge_names_its_parts_and_their_settings(card, resnet):
    resnet.perturb("lwf")
    text = card(mixture={"pretrained": 0.25, "ft": 0.5, "lwf": 0.25}).text
    assert "| average of | pretrained 0.25; ft 0.5; lwf 0.25 |" in text
    assert "| settings of lwf | weight 2.0 |" in text


def test_a_merge_over_seeds_names_its_runs_and_the_settings_of_their_method_once(card, resnet):
    resnet.perturb("lwf, seed 0")
    resnet.perturb("lwf, seed 1")
    text = card(mixture={"lwf, seed 0": 0.5, "lwf, seed 1": 0.5}).text
    assert "| average of | lwf, seed 0 0.5; lwf, seed 1 0.5 |" in text
    assert text.count("| settings of lwf | weight 2.0 |") == 1


def test_a_merge_on_loading_names_what_it_merged(card, resnet):
    resnet.perturb("lwf")
    merge = Merge(
        form="merge",
        algorithm=CATALOG.algorithm_file("ties"),
        settings={"density": 0.2, "scaling": 1.0},
        parents=["ft", "lwf"],
        run="net/target/ft/all/0",
    )
    text = card(mixture=merge).text
    assert "| merged on loading | ft; lwf, and the pretrained weights |" in text
    assert "| settings of lwf | weight 2.0 |" in text


TERMS = (
    "Share-alike",
    "Non-commercial",
    "No licence is stated",
    "does not allow showing its images",
    "forbids tuning",
)


@pytest.mark.parametrize(
    ("licence", "more", "said"),
    [
        ("CC-BY-NC-SA-4.0", {}, ["Share-alike", "Non-commercial"]),
        ("not stated for the images", {}, ["No licence is stated"]),
        ("MIT", {"publishable": False}, ["does not allow showing its images"]),
        ("MIT", {"tuning": {"accept": "x", "terms": "It forbids tuning."}}, ["forbids tuning"]),
        ("MIT", {}, []),
        ("the licences of Bitstream Vera, and of SAS", {}, []),
    ],
)
def test_terms_of_the_target_are_named(card, licence, more, said):
    expected_license = "mit" if licence == "MIT" else "other"
    target_card = card({**FREE, "licence": licence, **more})
    terms_on_card = [words for words in TERMS if words in target_card.text]
    assert terms_on_card == said
    assert target_card.data.license == expected_license


@pytest.mark.parametrize(
    ("uses", "reference", "is_named"),
    [("no", "memory", False), ("optional", "memory", True), ("optional", None, False)],
)
def test_the_licence_of_a_proxy_that_was_trained_on_is_named(card, uses, reference, is_named):
    # given
    methods = {name: {**entry, "reference": uses} for name, entry in ABOUT["methods"].items()}
    proxy = {**FREE, "label": "Memory", "licence": "CC-BY-SA-4.0"}
    expected_license = "other" if is_named else "mit"
    # when
    card_of_run = card(read={"target": FREE, "memory": proxy}, methods=methods, reference=reference)
    # then
    assert ("Memory" in card_of_run.text) == is_named
    assert ("Share-alike" in card_of_run.text) == is_named
    assert card_of_run.data.license == expected_license


def test_every_licence_of_the_catalogue_is_understood(card):
    """Share-alike and non-commercial ones by their text."""
    licences = {entry.licence for entry in CATALOG.datasets.values()}
    assert licences
    for licence in sorted(licences):
        text = card({**FREE, "licence": licence}).text
        assert ("Share-alike" in text) == ("-SA" in licence), licence
        assert ("Non-commercial" in text) == ("ImageNet" in licence), licence


def test_the_card_cites_the_paper_and_this_software(card):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", card().text, re.DOTALL)
    titles = re.findall(r"title   = \{(.*)\}", bibtex)
    assert set(titles) == {citation["title"], citation["preferred-citation"]["title"]}
