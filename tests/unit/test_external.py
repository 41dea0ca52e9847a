"""Weights that were trained elsewhere: the tables that name them, and what becomes of the files."""

import copy
import os
import pickle
import re
import time

import pytest
import safetensors.torch
import timm
import torch
import yaml

from rib.base.errors import UserError
from rib.base.files import read_json, sha256
from rib.config.catalog import Catalog
from rib.config.run import Run
from rib.data.view import DatasetFiles
from rib.methods.external import External
from rib.models.checkpoint import apply, xor_decompress
from rib.models.network import build, load
from rib.training.finetune import FineTuningInputs, FineTuningOutput, finetune
from rib.training.settings import FineTuningSettings
from tiny.grids import grid
from tiny.project import ROOT
from tiny.training import (
    CODE,
    COMPUTE,
    CPU,
    VIEW,
    model_folder,
    prepared_folder,
    random_images,
    resnet,
    task_of,
)

HEAD = "model,target,method,seed,file"
CHOICES = {"models": ["efficientnet_lite0"], "targets": ["noto", "twemoji"], "methods": ["ft"]}
ROWS = ["efficientnet_lite0,noto,theirs,0,a.pth", "efficientnet_lite0,twemoji,theirs,0,b"]
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


def resolved(folder, *tables, folders=(), **choices):
    """The grid with tables of these lines in a folder."""
    paths = []
    for number, lines in enumerate(tables):
        paths.append(str(folder / f"{number}.csv"))
        (folder / f"{number}.csv").write_text("\n".join(lines) + "\n")
    catalog = Catalog([ROOT / "workflow/catalog", *folders], paths)
    return grid(catalog, external=paths, **{**CHOICES, **choices})


def test_the_methods_of_tables_join_the_grid(tmp_path):
    labelled = [f"{row},Their method" for row in ROWS]
    others = [row.replace("theirs", "others") for row in ROWS]
    found = resolved(tmp_path, [f"{HEAD},label", *labelled], [HEAD, *others])
    assert list(found.methods) == ["ft", "theirs", "others"]
    theirs, others = found.methods["theirs"], found.methods["others"]
    assert (theirs.label, others.label) == (
        "Their method",
        "others",
    ) and theirs.style != others.style
    assert (theirs.form, theirs.schedule, theirs.trains, theirs.can_fit) == (
        "external",
        None,
        False,
        False,
    )
    assert Run("efficientnet_lite0", "twemoji", "theirs", "all", 0) in found.runs()
    files = {run: row["path"] for run, row in found.catalog.external.items() if "/theirs/" in run}
    names = [f"efficientnet_lite0/{target}/theirs/all/0" for target in ("noto", "twemoji")]
    assert files == dict(zip(names, (tmp_path / "a.pth", tmp_path / "b"), strict=True))
    shown = found.resolved()
    assert shown["recipes"] == ["adamw"] and "external" not in shown, (
        "paths of the user are not shown"
    )


@pytest.mark.parametrize("methods", ["all", ["pretrained"], ["theirs"], []])
def test_they_join_whatever_other_methods_are_chosen(tmp_path, methods):
    found = resolved(tmp_path, [HEAD, *ROWS], methods=methods)
    assert list(found.methods).count("theirs") == 1 and (
        methods == "all" or list(found.methods) == ["theirs"]
    )


def test_rows_of_runs_that_are_not_chosen_wait(tmp_path):
    other = ["efficientnet_lite2,noto,theirs,0,c.pth", "efficientnet_lite0,noto,theirs,5,d.pth"]
    assert len(resolved(tmp_path, [HEAD, *ROWS, *other]).catalog.external) == 4


def test_a_run_of_each_size_and_seed_has_a_row(tmp_path):
    rows = [f"{row},{size}" for row in ROWS for size in ("all", "")]
    with pytest.raises(UserError, match=r"1\.csv line 3: .*noto/theirs/all/0 is in .*line 2 too"):
        resolved(tmp_path, [HEAD], [f"{HEAD},size", *rows])
    rows = [f"{row},{size}" for row in ROWS for size in ("all", "0.5")]
    rows += [row.replace(",0,", ",7,") for row in rows]
    found = resolved(tmp_path, [f"{HEAD},size", *rows], train_subset=["all", 0.5], seeds=[0, 7])
    assert sum(run.method == "theirs" for run in found.runs()) == 8
    with pytest.raises(
        UserError, match=r"2 runs have no row, such as efficientnet_lite0/noto/theirs/all/8"
    ):
        resolved(
            tmp_path,
            [f"{HEAD},size", *rows],
            train_subset=["all", 0.5],
            seeds=[0, 8],
            targets=["noto"],
        )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEAD.replace(",file", ""), "a,b,c,0"], r"0\.csv lacks the column file"),
        ([HEAD, ROWS[0], "efficientnet_lite0,twemoji"], r"0\.csv line 3: expected 5 values"),
        (
            [HEAD, *ROWS, ROWS[0]],
            r"0\.csv line 4: efficientnet_lite0/noto/theirs/all/0 is in .*line 2 too",
        ),
        ([HEAD, *ROWS, "vit,noto,theirs,0,a"], r"0\.csv line 4: unknown model 'vit'"),
        (
            [HEAD, *ROWS, "efficientnet_lite0,notto,theirs,0,a"],
            r"0\.csv line 4: unknown target 'notto' \(.*'noto'",
        ),
        (
            [f"{HEAD},size", *[f"{row},10" for row in ROWS]],
            r"config, external: \d+ runs have no row",
        ),
        ([HEAD.replace("seed", "sead"), *ROWS], "lacks the column seed"),
        (
            [f"{HEAD},lable", *[f"{row},x" for row in ROWS]],
            r"0\.csv line 2: unknown column 'lable' \(did you mean 'label'",
        ),
        ([HEAD, ROWS[0].replace(",0,", ",zero,"), *ROWS[1:]], r"0\.csv line 2: the seed is 'zero'"),
        (
            [HEAD, *[row.replace("theirs", "ft") for row in ROWS]],
            "config, external: 'ft' is already defined in",
        ),
        (
            [HEAD, *[row.replace("theirs", "../x") for row in ROWS]],
            r"config, external: '\.\./x' is not a valid name",
        ),
        (
            [HEAD, *[row.replace("theirs", "pretrained") for row in ROWS]],
            "'pretrained' is not a valid name",
        ),
        (
            [f"{HEAD},label", *[f"{row},<b>" for row in ROWS]],
            r"config, external: 'theirs\.label' is '<b>'",
        ),
        (
            [HEAD, ROWS[0]],
            "config, external: 1 runs have no row, "
            "such as efficientnet_lite0/twemoji/theirs/all/0;",
        ),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, lines, said):
    with pytest.raises(UserError, match=said):
        resolved(tmp_path, lines)


def test_a_table_that_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist; correct its name"):
        _ = Catalog([ROOT / "workflow/catalog"], [str(tmp_path / "none.csv")]).methods


def test_tables_and_files_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.csv").write_text(f"{HEAD}\n{ROWS[0].replace('a.pth', '~/deep/a.pth')}\n")
    (row,) = Catalog([ROOT / "workflow/catalog"], ["~/t.csv"]).external.values()
    assert row["path"] == tmp_path / "deep/a.pth"


def test_a_merge_of_a_users_may_average_them(tmp_path):
    style = {"colour": "#000000", "marker": "x"}
    entries = {
        "half": {"algorithm": "wise_ft", "settings": {"alpha": 0.5}, "parents": ["theirs"]},
        "mixed": {"algorithm": "soup", "parents": ["ft", "theirs"]},
        "further": {
            "algorithm": "ft",
            "recipes": {"adamw": {"lr": 0.001}},
            "starts_from": "theirs",
        },
    }
    more = {"label": "x", "source": "x", "style": style}
    (tmp_path / "methods.yaml").write_text(
        yaml.safe_dump({name: {**e, **more} for name, e in entries.items()})
    )
    found = resolved(tmp_path, [HEAD, *ROWS], folders=[tmp_path], methods=list(entries))
    recipes = {name: method.schedule for name, method in found.methods.items()}
    assert recipes == {
        "theirs": None,
        "half": None,
        "ft": "adamw",
        "mixed": "adamw",
        "further": "adamw",
    }


def test_a_thousand_rows_are_read_in_a_moment(tmp_path):
    rows = [
        f"efficientnet_lite0,{t},theirs,{seed},{seed}.pth"
        for t in ("noto", "twemoji")
        for seed in range(500)
    ]
    resolved(tmp_path, [HEAD, *ROWS])
    begun = time.process_time()
    found = resolved(tmp_path, [HEAD, *rows], seeds=list(range(500)))
    assert len(found.catalog.external) == 1000 and time.process_time() - begun < 2


def changed(network, part=""):
    """A copy of a network with other floating-point weights, of those whose name has a part."""
    tuned, generator = copy.deepcopy(network), torch.Generator().manual_seed(1)
    for name, tensor in tuned.state_dict().items():
        if tensor.is_floating_point() and part in name:
            tensor += 1e-3 * torch.randn(tensor.shape, generator=generator)
    return tuned


def save(state, path):
    """Save a state dict as the name of the file says; its path."""
    write = torch.save if path.suffix in (".pth", ".bin") else safetensors.torch.save_file
    write({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return path


def versions(*files):
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def taken(network, library, architecture, *files, **arguments):
    """The state dict that a network has after it has taken the weights of files."""
    model = copy.deepcopy(network)
    method = External(
        "a/run",
        versions(*files),
        {"library": library, "architecture": architecture, "arguments": arguments},
    )
    method.setup(task_of(model, random_images(4)))
    return model.state_dict()


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype, key


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
@pytest.mark.parametrize("part", ["", "fc."])
def test_a_job_stores_what_differs_from_the_pretrained_weights(tmp_path, caplog, name, part):
    network, data = resnet(), random_images(10, 32)
    tuned, folder = changed(network, part), model_folder(tmp_path / "model", network)
    target = DatasetFiles("set", prepared_folder(tmp_path / "set", data))
    found = job(tmp_path, folder, target, save(tuned.state_dict(), tmp_path / name))
    stored = xor_decompress(safetensors.torch.load_file(found["checkpoint"]), network.state_dict())
    same(
        stored, {k: t for k, t in tuned.state_dict().items() if part in k and t.is_floating_point()}
    )
    model = apply(load(folder, CPU)[0], {"theirs": 1.0}, {"theirs": found["checkpoint"]})
    same(model.state_dict(), tuned.state_dict())
    facts = read_json(found["manifest"])
    assert {key: facts[key] for key in ("train_images", "steps", "images")} == {
        "train_images": 10,
        "steps": 0,
        "images": 0,
    }
    assert facts["taken_from"] == {name: sha256(tmp_path / name)}
    assert 0 <= facts["fit"] <= 1
    assert "equal" not in caplog.text


def job(folder, model, target, *files):
    """Run the job of a run; its outputs."""
    paths = {"checkpoint": folder / "checkpoint.safetensors", "manifest": folder / "manifest.json"}
    of = {"library": "timm", "architecture": "test_resnet", "arguments": {}}
    finetune(
        run=Run("net", "set", "theirs", "all", 0),
        inputs=FineTuningInputs(model_folder=model, target=target),
        settings=FineTuningSettings(
            algorithm=str(ROOT / "workflow/lib/rib/methods/external.py"),
            settings={"run": "net/set/theirs/all/0", "files": versions(*files), "model": of},
            parents=[],
            training=None,
            view=VIEW,
            compute=COMPUTE,
            code=CODE,
        ),
        output=FineTuningOutput(rescue=folder / "rescue", saved=folder / "saved", **paths),
    )
    return paths


def test_weights_that_equal_the_pretrained_ones_are_taken_with_a_warning(tmp_path, caplog):
    network = resnet()
    target = DatasetFiles("set", prepared_folder(tmp_path / "set", random_images(10, 32)))
    folder = model_folder(tmp_path / "model", network)
    found = job(tmp_path, folder, target, save(network.state_dict(), tmp_path / "w.pth"))
    assert "net/set/theirs/all/0: the weights equal the pretrained ones" in caplog.text
    same(
        apply(load(folder, CPU)[0], {"x": 1.0}, {"x": found["checkpoint"]}).state_dict(),
        network.state_dict(),
    )


def test_the_library_converts_names_and_types(tmp_path):
    """Those of a timm network inside an open_clip model, in half precision."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=7)
    tuned = changed(network).half()
    tuned.head.bias.data.zero_()
    state = {
        f"visual.trunk.{key}": tensor
        for key, tensor in tuned.state_dict().items()
        if "head" not in key
    }
    state["visual.head.proj.weight"] = tuned.head.weight
    same(
        taken(network, "timm", "test_vit", save(state, tmp_path / "w.safetensors")),
        {key: tensor.float() for key, tensor in tuned.state_dict().items()},
    )


@pytest.fixture(scope="module")
def clip():
    """A small fine-tuned open_clip model, and a network of its image tower before that."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    network = build("open_clip", "tiny", 5, arguments={"model_cfg": CLIP})
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CLIP.items()}
    return open_clip.model.CLIP(**config).eval(), network


@pytest.mark.parametrize("form", ["whole", "damaged text", "tower", "classifier", "exported"])
def test_an_image_tower_is_taken_with_the_head_that_there_is(tmp_path, caplog, clip, form):
    whole, network = clip
    visual = {f"visual.{key}": tensor for key, tensor in whole.visual.state_dict().items()}
    head = {"head.weight": torch.randn(5, 8), "head.bias": torch.randn(5)}
    state, files = visual, []
    if form in ("whole", "exported"):
        state = whole.state_dict()
    elif form == "damaged text":
        state = {**whole.state_dict(), "text_projection": torch.full((16, 8), torch.nan)}
    elif form == "classifier":
        state = visual | head
    if form == "exported":
        plain = {key.removeprefix("head."): tensor for key, tensor in head.items()}
        files = [save(plain, tmp_path / "classification_head.safetensors")]
    files = [save(state, tmp_path / "open_clip_model.safetensors"), *files]
    found = taken(network, "open_clip", "tiny", *files, model_cfg=CLIP)
    kept = {key: tensor for key, tensor in network.state_dict().items() if key.startswith("head.")}
    has_head = form in ("classifier", "exported")
    same(found, visual | (head if has_head else kept))
    assert ("so the pretrained one is kept" in caplog.text) != has_head


class Trap:
    """Leaves a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trap",)


# How a state dict of test_resnet is changed, and the sentence.
BAD = {
    "pickled code": (
        lambda s: {**s, "x": Trap()},
        "contains other pickled objects than tensors, which are never",
    ),
    "nested": (lambda s: {"state_dict": s}, "save its state dict, tensors by name"),
    "NaN": (
        lambda s: s | {"fc.bias": s["fc.bias"] * torch.nan},
        "'fc.bias' has NaN or infinite values",
    ),
    "other outputs": (
        lambda s: s | {"fc.weight": s["fc.weight"][:7], "fc.bias": s["fc.bias"][:7]},
        r"fc\.weight.*7",
    ),
    "no head": (
        lambda s: {key: s[key] for key in s if "fc." not in key},
        r"Missing key.*fc\.weight",
    ),
    "another architecture": (
        lambda s: timm.create_model("test_vit").state_dict(),
        r"don't fit timm's test_resnet .*Missing key.*conv1",
    ),
    "one tensor more": (lambda s: s | {"more": torch.zeros(2)}, "Unexpected key.*more"),
}


@pytest.mark.attack("weights")
@pytest.mark.parametrize("kind", BAD)
def test_files_that_cannot_be_used_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    network, (change, said) = resnet(), BAD[kind]
    path = tmp_path / "w.pth"
    torch.save(change(network.state_dict()), path)
    with pytest.raises(UserError, match=f"(?s)^a/run: .*{said}") as refused:
        taken(network, "timm", "test_resnet", path)
    assert (
        not re.search("weights_only|torch.load|safe_globals", str(refused.value))
        and not (tmp_path / "trap").exists()
    )


@pytest.mark.attack("weights")
def test_a_pickle_is_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(
        UserError, match=r"^a/run: .*w\.bin contains other pickled objects than tensors"
    ):
        taken(resnet(), "timm", "test_resnet", tmp_path / "w.bin")
    assert not (tmp_path / "trap").exists()
    pickle.loads(pickle.dumps(Trap()))
    assert (tmp_path / "trap").exists(), "the trap works"


@pytest.mark.attack("weights")
@pytest.mark.parametrize(
    "head",
    [
        {"weight": torch.zeros(4, 8), "bias": torch.zeros(4)},
        {"weight": torch.zeros(5, 8)},
        {"weight": torch.zeros(5, 8), "bias": torch.full((5,), torch.inf)},
        {"weight": torch.zeros(5, 8), "bias": torch.zeros(5), "more": torch.zeros(1)},
    ],
    ids=["other outputs", "no bias", "infinity", "more"],
)
def test_a_head_that_does_not_fit_is_refused(tmp_path, clip, head):
    whole, network = clip
    files = (
        save(whole.state_dict(), tmp_path / "a.safetensors"),
        save(head, tmp_path / "b.safetensors"),
    )
    with pytest.raises(
        ValueError, match="the head of a/run has NaN or infinite values, or isn't Linear.*5"
    ):
        taken(network, "open_clip", "tiny", *files, model_cfg=CLIP)


@pytest.mark.attack("weights")
def test_a_tower_that_lacks_a_tensor_is_refused(tmp_path, clip):
    whole, network = clip
    visual = {
        f"visual.{key}": tensor
        for key, tensor in whole.visual.state_dict().items()
        if key != "proj"
    }
    with pytest.raises(UserError, match=r"a/run: .*Missing key.*visual\.proj"):
        taken(
            network, "open_clip", "tiny", save(visual, tmp_path / "w.safetensors"), model_cfg=CLIP
        )


@pytest.mark.attack("weights")
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    network = resnet()
    path = save(network.state_dict(), tmp_path / "w.pth")
    planned = versions(path)
    save(changed(network).state_dict(), path)
    of = {"library": "timm", "architecture": "test_resnet", "arguments": {}}
    with pytest.raises(
        ValueError, match=r"w\.pth has changed since the job was planned; run again"
    ):
        External("a/run", planned, of).setup(task_of(copy.deepcopy(network), random_images(4)))
