"""Weights that were trained elsewhere: the tables that name them, and what becomes of the files."""

import copy
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import safetensors.torch
import timm
import torch
import yaml

from rib.base.errors import UserError
from rib.base.files import read_json, sha256
from rib.catalog.catalog import Catalog
from rib.data.view import DatasetFiles
from rib.grid.grid_as_config import resolved
from rib.methods.external import External
from rib.models.checkpoint import apply, xor_decompress
from rib.models.network import build, load
from rib.schema.method_facts import MethodFacts
from rib.schema.run import Run
from rib.training.finetune import finetune
from rib.training.training_settings import FineTuningSettings
from tiny.models.image_classifier import ImageClassifier
from tiny.models.training import (
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
from tiny.projects.grids import grid
from tiny.projects.project import ROOT

CATALOG = ROOT / "workflow/catalog"
CHOICES = {"models": ["efficientnet_lite0"], "targets": ["noto", "twemoji"], "methods": ["ft"]}
# A table has a row of each run.
HEAD = "model,target,method,seed,file"
ROW_OF_NOTO = "efficientnet_lite0,noto,theirs,0,a.pth"
ROW_OF_TWEMOJI = "efficientnet_lite0,twemoji,theirs,0,b"
ROWS = [ROW_OF_NOTO, ROW_OF_TWEMOJI]
# Networks, as the catalogue describes them.
TEST_RESNET = {"library": "timm", "architecture": "test_resnet", "arguments": {}}
TEST_VIT = {"library": "timm", "architecture": "test_vit", "arguments": {}}
CLIP_CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
TINY_CLIP = {
    "library": "open_clip",
    "architecture": "tiny",
    "arguments": {"model_cfg": CLIP_CONFIG},
}


def rows_ending(value):
    """ROWS with a value in one more column."""
    return [f"{row},{value}" for row in ROWS]


def rows_of_method(name):
    """ROWS with another method."""
    return [row.replace("theirs", name) for row in ROWS]


def grid_with_tables(folder, *tables, folders=(), **choices):
    """The grid of some choices with tables in a folder, 0.csv, 1.csv and so on.

    Args:
        tables: lines of each.
        folders: more folders of the catalogue.
    """
    paths = []
    for number, lines in enumerate(tables):
        table = folder / f"{number}.csv"
        table.write_text("\n".join(lines) + "\n")
        paths.append(str(table))
    catalog = Catalog([CATALOG, *folders], paths)
    return grid(catalog, external=paths, **{**CHOICES, **choices})


def test_the_methods_of_tables_join_the_grid(tmp_path):
    # given
    labelled_table = [f"{HEAD},label", *rows_ending("Their method")]
    plain_table = [HEAD, *rows_of_method("others")]
    # when
    chosen = grid_with_tables(tmp_path, labelled_table, plain_table)
    # then
    assert list(chosen.methods) == ["ft", "theirs", "others"]
    theirs = chosen.methods["theirs"]
    others = chosen.methods["others"]
    assert theirs.label == "Their method"
    assert others.label == "others"
    assert theirs.style != others.style
    assert theirs.form == "external"
    assert theirs.recipe is None
    assert theirs.trains is False
    assert theirs.can_fit is False
    assert Run("efficientnet_lite0", "twemoji", "theirs", "all", 0) in chosen.runs()
    files_of_theirs = {
        run: row["path"] for run, row in chosen.catalog.external.items() if "/theirs/" in run
    }
    assert files_of_theirs == {
        "efficientnet_lite0/noto/theirs/all/0": tmp_path / "a.pth",
        "efficientnet_lite0/twemoji/theirs/all/0": tmp_path / "b",
    }
    shown_choices = resolved(chosen)
    assert shown_choices["recipes"] == ["adamw"]
    assert "external" not in shown_choices, "paths of the user are not shown"


@pytest.mark.parametrize("methods", ["all", ["pretrained"], ["theirs"], []])
def test_they_join_whatever_other_methods_are_chosen(tmp_path, methods):
    chosen = grid_with_tables(tmp_path, [HEAD, *ROWS], methods=methods)
    names = list(chosen.methods)
    if methods == "all":
        assert "ft" in names
        assert names.count("theirs") == 1
    else:
        assert names == ["theirs"]


def test_rows_of_runs_that_are_not_chosen_wait(tmp_path):
    of_another_model = "efficientnet_lite2,noto,theirs,0,c.pth"
    of_another_seed = "efficientnet_lite0,noto,theirs,5,d.pth"
    table = [HEAD, *ROWS, of_another_model, of_another_seed]
    chosen = grid_with_tables(tmp_path, table)
    assert len(chosen.catalog.external) == 4


def test_a_run_of_each_size_and_seed_has_a_row(tmp_path):
    # given
    head = f"{HEAD},size"
    rows_of_seed_0 = [*rows_ending("all"), *rows_ending("0.5")]
    rows_of_seed_7 = [row.replace(",0,", ",7,") for row in rows_of_seed_0]
    table = [head, *rows_of_seed_0, *rows_of_seed_7]
    sizes = ["all", 0.5]
    # when
    chosen = grid_with_tables(tmp_path, table, train_subset=sizes, seeds=[0, 7])
    # then
    runs_of_theirs = [run for run in chosen.runs() if run.method == "theirs"]
    assert len(runs_of_theirs) == 8
    message = r"2 runs have no row, such as efficientnet_lite0/noto/theirs/all/8"
    with pytest.raises(UserError, match=message):
        grid_with_tables(tmp_path, table, train_subset=sizes, seeds=[0, 8], targets=["noto"])


def test_a_run_with_two_rows_is_refused_even_if_one_leaves_the_size_out(tmp_path):
    empty_table = [HEAD]
    table_with_two_rows_of_a_run = [
        f"{HEAD},size",
        f"{ROW_OF_NOTO},all",
        f"{ROW_OF_NOTO},",
        f"{ROW_OF_TWEMOJI},all",
        f"{ROW_OF_TWEMOJI},",
    ]
    message = r"1\.csv line 3: .*noto/theirs/all/0 is in .*line 2 too"
    with pytest.raises(UserError, match=message):
        grid_with_tables(tmp_path, empty_table, table_with_two_rows_of_a_run)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEAD.replace(",file", ""), "a,b,c,0"], r"0\.csv lacks the column file"),
        ([HEAD, ROW_OF_NOTO, "efficientnet_lite0,twemoji"], r"0\.csv line 3: expected 5 values"),
        ([HEAD, *ROWS, "vit,noto,theirs,0,a"], r"0\.csv line 4: unknown model 'vit'"),
        (
            [HEAD, *ROWS, "efficientnet_lite0,notto,theirs,0,a"],
            r"0\.csv line 4: unknown target 'notto' \(.*'noto'",
        ),
        (
            [f"{HEAD},lable", *rows_ending("x")],
            r"0\.csv line 2: unknown column 'lable' \(did you mean 'label'",
        ),
        (
            [HEAD, ROW_OF_NOTO.replace(",0,", ",zero,"), ROW_OF_TWEMOJI],
            r"0\.csv line 2: the seed is 'zero'",
        ),
        (
            [HEAD, *ROWS, ROW_OF_NOTO.replace(",0,", ",00,")],
            r"0\.csv line 4: the seed is '00'; give a whole number, without zeros in front",
        ),
        ([HEAD, *rows_of_method("ft")], "config, external: 'ft' is already defined in"),
        ([HEAD, *rows_of_method("../x")], r"config, external: '\.\./x' is not a valid name"),
        ([f"{HEAD},label", *rows_ending("<b>")], r"config, external: 'theirs\.label' is '<b>'"),
        (
            [HEAD, ROW_OF_NOTO],
            "config, external: 1 runs have no row, .*efficientnet_lite0/twemoji/theirs/all/0",
        ),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        grid_with_tables(tmp_path, lines)


def test_a_table_that_does_not_exist_is_one_sentence(tmp_path):
    catalog = Catalog([CATALOG], [str(tmp_path / "none.csv")])
    with pytest.raises(UserError, match=r"none\.csv does not exist; correct its name"):
        _ = catalog.methods


def test_tables_and_files_may_be_in_the_home_folder(tmp_path, monkeypatch):
    # given
    monkeypatch.setenv("HOME", str(tmp_path))
    row_in_home = ROW_OF_NOTO.replace("a.pth", "~/deep/a.pth")
    (tmp_path / "t.csv").write_text(f"{HEAD}\n{row_in_home}\n")
    # when
    catalog = Catalog([CATALOG], ["~/t.csv"])
    # then
    (row,) = catalog.external.values()
    assert row["path"] == tmp_path / "deep/a.pth"


def test_a_merge_of_a_users_may_average_them(tmp_path):
    # given
    common = {"label": "x", "source": "x", "style": {"colour": "#000000", "marker": "x"}}
    entries = {
        "half": {
            **common,
            "algorithm": "wise_ft",
            "form": "coefficients",
            "settings": {"alpha": 0.5},
            "parents": ["theirs"],
        },
        "mixed": {
            **common,
            "algorithm": "soup",
            "form": "coefficients",
            "settings": {"pretrained": True},
            "parents": ["ft", "theirs"],
        },
        "further": {
            **common,
            "algorithm": "ft",
            "recipes": {"adamw": {"lr": 0.001}},
            "starts_from": "theirs",
        },
    }
    (tmp_path / "methods.yaml").write_text(yaml.safe_dump(entries))
    # when
    chosen = grid_with_tables(
        tmp_path, [HEAD, *ROWS], folders=[tmp_path], methods=["half", "mixed", "further"]
    )
    # then
    recipes = {name: method.recipe for name, method in chosen.methods.items()}
    assert recipes == {
        "theirs": None,
        "half": None,
        "ft": "adamw",
        "mixed": "adamw",
        "further": "adamw",
    }


def fine_tuned(network, substring=""):
    """A copy of a network with other floating-point weights.

    Args:
        substring: that the names of the changed weights have.
    """
    tuned = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tuned.state_dict().items():
        if tensor.is_floating_point() and substring in name:
            tensor += 1e-3 * torch.randn(tensor.shape, generator=generator)
    return tuned


def save(state, path):
    """Save a state dict in the format that the ending of the file says; gives its path."""
    contiguous_tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(contiguous_tensors, path)
    else:
        torch.save(contiguous_tensors, path)
    return path


def with_prefix(prefix, state):
    """A state dict whose names begin with a prefix."""
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def sizes_and_times(*files):
    """Sizes and times of files, as they are noted when a job is planned."""
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def state_with_weights_of(network, model, *files):
    """The state dict that a copy of a network has after it has taken the weights of files.

    Args:
        model: the network's library, architecture and arguments.
    """
    taking_network = copy.deepcopy(network)
    method = External(run="a/run", files=sizes_and_times(*files), model=model)
    method.setup(task_of(taking_network, random_images(4)))
    return taking_network.state_dict()


def assert_same_tensors(state, expected_state):
    """Compare names, types and bits of tensors, of which there is at least one."""
    assert expected_state
    assert state.keys() == expected_state.keys()
    for key, expected_tensor in expected_state.items():
        assert torch.equal(state[key], expected_tensor), key
        assert state[key].dtype == expected_tensor.dtype, key


def run_job(folder, model, target, *files):
    """Run the job of run net/set/theirs/all/0, whose weights are in files; gives its output."""
    output = SimpleNamespace(
        checkpoint=folder / "checkpoint.safetensors",
        manifest=folder / "manifest.json",
        rescue=folder / "rescue",
        saved=folder / "saved",
    )
    settings_of_method = {
        "run": "net/set/theirs/all/0",
        "files": sizes_and_times(*files),
        "model": TEST_RESNET,
    }
    finetune(
        run=Run("net", "set", "theirs", "all", 0),
        model_folder=model,
        start={},
        target=target,
        settings=FineTuningSettings(
            algorithm=str(ROOT / "workflow/lib/rib/methods/external.py"),
            settings=settings_of_method,
            facts=MethodFacts(),
            parents=[],
            training=None,
            view=VIEW,
            compute=COMPUTE,
            code=CODE,
        ),
        **vars(output),
    )
    return output


@pytest.mark.parametrize(("file_name", "substring"), [("w.safetensors", ""), ("w.bin", "fc.")])
def test_a_job_stores_what_differs_from_the_pretrained_weights(
    tmp_path, caplog, file_name, substring
):
    # given
    network = resnet()
    tuned = fine_tuned(network, substring)
    folder = model_folder(tmp_path / "model", network)
    target = DatasetFiles("set", prepared_folder(tmp_path / "set", random_images(10, 32)))
    file = save(tuned.state_dict(), tmp_path / file_name)
    # when
    output = run_job(tmp_path, folder, target, file)
    # then
    stored_tensors = safetensors.torch.load_file(output.checkpoint)
    changed_tensors = xor_decompress(stored_tensors, network.state_dict())
    expected_tensors = {
        name: tensor
        for name, tensor in tuned.state_dict().items()
        if substring in name and tensor.is_floating_point()
    }
    assert_same_tensors(changed_tensors, expected_tensors)
    pretrained, _ = load(folder, CPU)
    restored = apply(pretrained, {"theirs": 1.0}, {"theirs": output.checkpoint})
    assert_same_tensors(restored.state_dict(), tuned.state_dict())
    manifest = read_json(output.manifest)
    assert manifest["train_images"] == 10
    assert manifest["steps"] == 0
    assert manifest["images"] == 0
    assert manifest["taken_from"] == {file_name: sha256(file)}
    assert 0 <= manifest["fit"] <= 1
    assert "equal" not in caplog.text


def test_weights_that_equal_the_pretrained_ones_are_taken_with_a_warning(tmp_path, caplog):
    # given
    network = resnet()
    folder = model_folder(tmp_path / "model", network)
    target = DatasetFiles("set", prepared_folder(tmp_path / "set", random_images(10, 32)))
    file = save(network.state_dict(), tmp_path / "w.pth")
    # when
    output = run_job(tmp_path, folder, target, file)
    # then
    assert "net/set/theirs/all/0: the weights equal the pretrained ones" in caplog.text
    pretrained, _ = load(folder, CPU)
    restored = apply(pretrained, {"theirs": 1.0}, {"theirs": output.checkpoint})
    assert_same_tensors(restored.state_dict(), network.state_dict())


def test_the_library_converts_names_and_types(tmp_path):
    """Those of a timm network inside an open_clip model, in half precision."""
    # given
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=7)
    tuned = fine_tuned(network).half()
    tuned.head.bias.data.zero_()  # open_clip's projection has none
    trunk = {key: tensor for key, tensor in tuned.state_dict().items() if "head" not in key}
    state_in_open_clip = {
        **with_prefix("visual.trunk.", trunk),
        "visual.head.proj.weight": tuned.head.weight,
    }
    file = save(state_in_open_clip, tmp_path / "w.safetensors")
    # when
    taken_state = state_with_weights_of(network, TEST_VIT, file)
    # then
    in_single_precision = {key: tensor.float() for key, tensor in tuned.state_dict().items()}
    assert_same_tensors(taken_state, in_single_precision)


@pytest.fixture(scope="module")
def clip_network():
    """A network of the image tower of a small open_clip model, with five outputs."""
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    return build("open_clip", "tiny", 5, arguments={"model_cfg": CLIP_CONFIG})


@pytest.fixture(scope="module")
def clip_model():
    """The whole open_clip model with other weights, as if it were fine-tuned."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(1)
    return open_clip.model.CLIP(**copy.deepcopy(CLIP_CONFIG)).eval()


@pytest.mark.parametrize("form", ["whole", "damaged text", "tower", "classifier", "exported"])
def test_an_image_tower_is_taken_with_the_head_that_there_is(
    tmp_path, caplog, clip_model, clip_network, form
):
    # given
    whole_model = clip_model.state_dict()
    tower = with_prefix("visual.", clip_model.visual.state_dict())
    head = {"weight": torch.randn(5, 8), "bias": torch.randn(5)}
    head_in_classifier = with_prefix("head.", head)
    state_by_form = {
        "whole": whole_model,
        "damaged text": {**whole_model, "text_projection": torch.full((16, 8), torch.nan)},
        "tower": tower,
        "classifier": {**tower, **head_in_classifier},
        "exported": whole_model,
    }
    files = [save(state_by_form[form], tmp_path / "open_clip_model.safetensors")]
    if form == "exported":
        files.append(save(head, tmp_path / "classification_head.safetensors"))
    # when
    taken_state = state_with_weights_of(clip_network, TINY_CLIP, *files)
    # then
    if form in ("classifier", "exported"):
        assert_same_tensors(taken_state, {**tower, **head_in_classifier})
        assert "so the pretrained one is kept" not in caplog.text
    else:
        pretrained_head = with_prefix("head.", clip_network.head.state_dict())
        assert_same_tensors(taken_state, {**tower, **pretrained_head})
        assert "so the pretrained one is kept" in caplog.text


def state_of_training(classifier, layout):
    """The state dict of an ImageClassifier as a training elsewhere saves it."""
    state = classifier.state_dict()
    if layout == "open_clip":
        return with_head(classifier, classifier.image_encoder.model.state_dict(), "head.")
    if layout == "FLYP":
        return with_head(classifier, classifier.image_encoder.state_dict(), "classification_head.")
    if layout == "DataParallel":
        return torch.nn.DataParallel(classifier).state_dict()
    return state


def with_head(classifier, encoder_state, prefix):
    """A state dict of the encoder with the head's tensors under a prefix."""
    return {**encoder_state, **with_prefix(prefix, classifier.classification_head.state_dict())}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("layout", ["wise-ft", "DataParallel", "FLYP", "open_clip"])
def test_an_image_classifier_of_others_gives_the_same_logits(
    tmp_path, caplog, clip_network, layout, bias
):
    # given
    torch.manual_seed(2)
    classifier = ImageClassifier(num_classes=5, bias=bias).eval()
    file = save(state_of_training(classifier, layout), tmp_path / "w.safetensors")
    network = copy.deepcopy(clip_network)
    images = torch.randn(6, 3, 32, 32)
    # when
    network.load_state_dict(state_with_weights_of(clip_network, TINY_CLIP, file))
    # then
    with torch.no_grad():
        torch.testing.assert_close(network(images), classifier(images), rtol=0, atol=1e-5)
    assert "so the pretrained one is kept" not in caplog.text


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_a_timm_network_is_taken_from_a_training_that_wrapped_it(tmp_path, container, prefix):
    # given
    network = resnet()
    tuned = fine_tuned(network).state_dict()
    content = with_prefix(prefix, tuned)
    if container is not None:
        content = {"epoch": 3, container: content, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "w.pt")
    # when
    taken_state = state_with_weights_of(network, TEST_RESNET, tmp_path / "w.pt")
    # then
    assert_same_tensors(taken_state, tuned)


def test_a_classification_head_on_a_timm_network_is_refused(tmp_path):
    """Its inputs may be normalised or not, which the state dict doesn't say."""
    network = resnet()
    encoder = with_prefix("model.", without_head(network.state_dict()))
    head = with_prefix("classification_head.", network.fc.state_dict())
    file = save({**encoder, **head}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"missing 'fc\.weight'.*'classification_head\.weight'"):
        state_with_weights_of(network, TEST_RESNET, file)


@pytest.mark.parametrize("model", [TEST_RESNET, TINY_CLIP], ids=["timm", "open_clip"])
def test_a_layout_that_is_not_known_is_refused_with_its_first_keys(tmp_path, clip_network, model):
    network = clip_network if model is TINY_CLIP else resnet()
    state = network.state_dict()
    file = save(with_prefix("net.", state), tmp_path / "w.pth")
    first_key = next(iter(state)).replace(".", r"\.")
    message = rf"^a/run: .*missing '.*unexpected 'net\.{first_key}'"
    with pytest.raises(UserError, match=message):
        state_with_weights_of(network, model, file)


def write_with_pickle(network, path):
    """Save a whole network as wise-ft and FLYP do."""
    path.write_bytes(pickle.dumps(network))


@pytest.mark.parametrize("write", [write_with_pickle, torch.save])
def test_a_whole_pickled_network_is_refused_with_the_way_to_its_state_dict(
    tmp_path, monkeypatch, write
):
    # given
    monkeypatch.chdir(tmp_path)
    network = fine_tuned(resnet())
    network.trap = Trap()
    file = tmp_path / "w.pt"
    write(network, file)
    # when
    with pytest.raises(UserError, match=r"^a/run: .*w\.pt") as refusal:
        state_with_weights_of(resnet(), TEST_RESNET, file)
    # then nothing was unpickled
    assert not (tmp_path / "trap").exists()
    # and the lines in the message work: the owner's own code may be unpickled
    statements = str(refusal.value).partition("import ")[2].rpartition(")")[0]
    subprocess.run([sys.executable, "-c", f"import {statements})"], check=True)
    assert (tmp_path / "trap").exists()
    (state_file,) = tmp_path.glob("*.pth")
    taken_state = state_with_weights_of(resnet(), TEST_RESNET, state_file)
    assert_same_tensors(taken_state, network.state_dict())


class Trap:
    """Leaves a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trap",)


def with_pickled_code(state):
    """A state dict with an object that runs code when it is unpickled."""
    return {**state, "x": Trap()}


def with_seven_outputs(state):
    """A state dict of test_resnet with another number of outputs."""
    return {**state, "fc.weight": state["fc.weight"][:7], "fc.bias": state["fc.bias"][:7]}


def without_head(state):
    """A state dict of test_resnet without its last layer."""
    return {key: tensor for key, tensor in state.items() if "fc." not in key}


def with_one_tensor_more(state):
    """A state dict with a tensor that the network lacks."""
    return {**state, "more": torch.zeros(2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(with_pickled_code, "never", id="pickled code"),
        pytest.param(with_seven_outputs, r"fc\.weight.*7", id="other outputs"),
        pytest.param(without_head, r"Missing key.*fc\.weight", id="no head"),
        pytest.param(with_one_tensor_more, "Unexpected key.*more", id="one tensor more"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, monkeypatch, change, message):
    # given
    monkeypatch.chdir(tmp_path)
    network = resnet()
    file = tmp_path / "w.pth"
    torch.save(change(network.state_dict()), file)
    # when
    with pytest.raises(UserError, match=f"(?s)^a/run: .*{message}"):
        state_with_weights_of(network, TEST_RESNET, file)
    # then
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "head",
    [
        {"weight": torch.zeros(4, 8), "bias": torch.zeros(4)},
        {"weight": torch.zeros(5, 8), "bias": torch.full((5,), torch.inf)},
    ],
    ids=["other outputs", "infinity"],
)
def test_a_head_that_does_not_fit_is_refused(tmp_path, clip_model, clip_network, head):
    file_of_model = save(clip_model.state_dict(), tmp_path / "a.safetensors")
    file_of_head = save(head, tmp_path / "b.safetensors")
    message = "the head of a/run"
    with pytest.raises(ValueError, match=message):
        state_with_weights_of(clip_network, TINY_CLIP, file_of_model, file_of_head)


def test_a_tower_that_lacks_a_tensor_is_refused(tmp_path, clip_model, clip_network):
    tower = with_prefix("visual.", clip_model.visual.state_dict())
    del tower["visual.proj"]
    file = save(tower, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"a/run: .*Missing key.*visual\.proj"):
        state_with_weights_of(clip_network, TINY_CLIP, file)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    # given
    network = resnet()
    file = save(network.state_dict(), tmp_path / "w.pth")
    planned = sizes_and_times(file)
    save(fine_tuned(network).state_dict(), file)
    # when
    method = External(run="a/run", files=planned, model=TEST_RESNET)
    # then
    message = r"w\.pth has changed since the job was planned; run again"
    with pytest.raises(ValueError, match=message):
        method.setup(task_of(copy.deepcopy(network), random_images(4)))
