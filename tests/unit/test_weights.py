"""Weights that are not what they should be.

They get one sentence each, and nothing that they contain is run.
"""

import argparse
import ast
import io
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.jobs.job import job
from rib.models.convert import ModelOutput, convert
from rib.models.network import create
from rib.models.settings import ConversionSettings
from rib.models.weights import read_state, with_weights
from tiny.project import ROOT
from tiny.training import CODE, COMPUTE

SIDE = 160
PLACE = "'conv_stem.weight'"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", num_classes=10).state_dict()


class Trap:
    """Leaves a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trap",)


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def scripted(state):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def deflated(data):
    """A zip as torch writes it, with its parts compressed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as given,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for part in given.infolist():
            made.writestr(part.filename, given.read(part))
    return buffer.getvalue()


OLD = {"_use_new_zipfile_serialization": False}
# Of each file: its name, its bytes from a state dict, and what the sentence contains.
FILES = {
    "integers": (
        "w.pth",
        lambda s: saved(s | {"conv_stem.weight": s["conv_stem.weight"].int()}),
        f"{PLACE}.*int32",
    ),
    "complex numbers": (
        "w.pth",
        lambda s: saved(s | {"conv_stem.weight": s["conv_stem.weight"].cfloat()}),
        PLACE,
    ),
    "NaN": (
        "w.pth",
        lambda s: saved(s | {"conv_stem.weight": s["conv_stem.weight"] * float("nan")}),
        f"{PLACE}.*NaN",
    ),
    "infinity": (
        "w.pth",
        lambda s: saved(s | {"conv_stem.weight": s["conv_stem.weight"] / 0}),
        f"{PLACE}.*infinite",
    ),
    "another shape": (
        "w.pth",
        lambda s: saved(s | {"conv_stem.weight": torch.zeros(3)}),
        "conv_stem.weight.*shape",
    ),
    "TorchScript": ("w.pt", scripted, "TorchScript"),
    "truncated zip": ("w.pth", lambda s: saved(s)[:-2000], "truncated"),
    "beginning of a zip": ("w.pth", lambda s: saved(s)[:500], "truncated"),
    "truncated pickle": ("w.pth", lambda s: saved(s, **OLD)[:-2000], "truncated"),
    "beginning of a pickle": ("w.pth", lambda s: saved(s, **OLD)[:200], "truncated|pickled"),
    "empty file": ("w.pth", lambda s: b"", "truncated"),
    "web page": ("w.pth", lambda s: b"<html>Log in</html>", "don't use"),
    "bare tensor": ("w.pth", lambda s: saved(torch.zeros(4)), "Tensor with no named tensors"),
    "list": ("w.pth", lambda s: saved(list(s.values())), "list with no named tensors"),
    "number": ("w.pth", lambda s: saved(3), "int with no named tensors"),
    "empty dict": ("w.pth", lambda s: saved({}), "dict with no named tensors"),
    "nested in state_dict": (
        "w.pth",
        lambda s: saved({"epoch": 3, "state_dict": s}),
        r"'state_dict' \(OrderedDict\)",
    ),
    "nested in model": ("w.pth", lambda s: saved({"model": s}), r"'model' \(OrderedDict\)"),
    "text among tensors": ("w.pth", lambda s: saved(s | {"author": "me"}), r"'author' \(str\)"),
    "numbers for names": (
        "w.pth",
        lambda s: saved(dict(enumerate(s.values()))),
        r"dict with int in place of a name; save its state dict",
    ),
    "bytes among names": (
        "w.pth",
        lambda s: saved({**s, b"x": torch.zeros(1)}),
        r"dict with bytes in place of a name; save its state dict",
    ),
    "other tensors": ("w.pth", lambda s: saved({"a": torch.zeros(1)}), "1 tensors"),
    "compressed tensors": (
        "w.pth",
        lambda s: deflated(saved(s)),
        "truncated, damaged or in another format",
    ),
    "sparse tensors": (
        "w.pth",
        lambda s: saved(s | {"x": torch.eye(3).to_sparse()}),
        r"'x' \(Tensor\)",
    ),
    "tensors without data": (
        "w.pth",
        lambda s: saved(s | {"x": torch.zeros(3, device="meta")}),
        r"'x' \(Tensor\)",
    ),
    "too large for its type": (
        "w.pth",
        lambda s: saved(
            s
            | {
                "conv_stem.weight": torch.full_like(
                    s["conv_stem.weight"], 1e300, dtype=torch.float64
                )
            }
        ),
        f"{PLACE}.*infinite",
    ),
    "one number as a tensor": (
        "w.pth",
        lambda s: saved(
            s | {"conv_stem.weight": torch.zeros(1).expand(s["conv_stem.weight"].shape)}
        ),
        f"{PLACE}.*stored",
    ),
    "4 bytes as 8 GB": (
        "w.pth",
        lambda s: saved(s | {"x": torch.zeros(1).expand(50_000, 40_000)}),
        "'x'.*stored",
    ),
    "4 bytes as 8 GB, old format": (
        "w.pth",
        lambda s: saved(s | {"x": torch.zeros(1).expand(50_000, 40_000)}, **OLD),
        "'x'.*stored",
    ),
    "overlapping rows": (
        "w.pth",
        lambda s: saved(s | {"x": torch.zeros(2000).as_strided((1000, 1000), (1, 1))}),
        "'x'.*stored",
    ),
    "a thousand names of one tensor": (
        "w.pth",
        lambda s: saved(s | dict.fromkeys(map(str, range(1000)), torch.zeros(100_000))),
        "2 times",
    ),
    "a head of no width for a billion classes": (
        "w.pth",
        lambda s: saved(s | {"classifier.weight": torch.zeros(10**9, 0)}),
        "1000000000 outputs",
    ),
    "a head of no shape": (
        "w.pth",
        lambda s: saved(s | {"classifier.weight": torch.tensor(1.0)}),
        "classifier.weight.*shape",
    ),
    "pickled code": ("w.pth", lambda s: saved(s | {"x": Trap()}), "never loaded"),
    "pickled code, old format": (
        "w.pth",
        lambda s: saved(s | {"x": Trap()}, **OLD),
        "never loaded",
    ),
    "plain pickle": ("w.pth", lambda s: pickle.dumps(Trap()), "never loaded"),
    "pickled network": ("w.pth", lambda s: saved(torch.nn.Linear(2, 2)), "never loaded"),
    "pickled arguments": (
        "w.pth",
        lambda s: saved({"args": argparse.Namespace(lr=1)}),
        "never loaded",
    ),
    "truncated safetensors": (
        "w.safetensors",
        lambda s: safetensors.torch.save(s)[:-100],
        "truncated",
    ),
    "beginning of safetensors": (
        "w.safetensors",
        lambda s: safetensors.torch.save(s)[:20],
        "truncated",
    ),
    "empty safetensors": ("w.safetensors", lambda s: b"", "truncated"),
    "safetensors without tensors": (
        "w.safetensors",
        lambda s: safetensors.torch.save({}),
        "no named tensors",
    ),
    "pickle named safetensors": ("w.safetensors", lambda s: saved({"x": Trap()}), "another format"),
}


def converted(folder, name, data, packed):
    """The job that converts a file of weights, by itself or in an archive."""
    (folder / name).write_bytes(data)
    archive = folder / "package.zip" if packed else folder / name
    if packed:
        with zipfile.ZipFile(archive, "w") as package:
            package.writestr(f"weights/{name}", data)
    entry = {
        "name": "net",
        **{
            "library": "timm",
            "architecture": "test_efficientnet",
            "arguments": {},
            "tokenizer": [],
            "pretraining": "none",
            "licence": "none",
        },
        "source": {"kind": "file", "path": str(archive), "file": archive.name},
        "weights": {"keys": "by_name", **({"member": f"weights/{name}"} if packed else {})},
        "preprocessing": {"input_size": SIDE},
    }
    outputs = {"weights": "out/weights.safetensors", "description": "out/model.json"}
    with job(
        rule="convert", name="net", cfg={}, inputs={}, outputs=outputs, log_file="net.log"
    ) as out:
        convert(
            archives=[archive],
            reference=None,
            settings=ConversionSettings(
                entry=entry,
                head="published",
                num_classes=10,
                class_names=None,
                view=None,
                compute=COMPUTE,
                code=CODE,
            ),
            output=ModelOutput(**out),
        )


@pytest.mark.attack("weights")
@pytest.mark.parametrize("kind", FILES)
def test_weights_are_refused_with_a_sentence_that_names_file_and_key(
    tmp_path, monkeypatch, capfd, state, kind
):
    monkeypatch.chdir(tmp_path)
    name, data, said = FILES[kind]
    with pytest.raises(SystemExit):
        converted(tmp_path, name, data(state), packed=not name.endswith("safetensors"))
    printed, log = capfd.readouterr().err, Path("net.log").read_text()
    assert re.search(rf"^convert net: net: .*({said})", printed) and printed.count("\n") == 1
    assert (
        "package.zip" in printed
        or "w.safetensors" in printed
        or "architecture" in printed
        or PLACE in printed
    )
    assert "Traceback" not in log
    for text in (printed, log):
        assert not re.search("weights_only|torch.load|jit.load|trust|allowlist|safe_globals", text)
    assert not Path("trap").exists() and not Path("out").exists()


@pytest.mark.attack("weights")
@pytest.mark.parametrize("kind", ["integers", "NaN"])
def test_the_same_in_safetensors(tmp_path, monkeypatch, capfd, state, kind):
    monkeypatch.chdir(tmp_path)
    bad = torch.load(io.BytesIO(FILES[kind][1](state)), weights_only=True)
    with pytest.raises(SystemExit):
        converted(tmp_path, "w.safetensors", safetensors.torch.save(bad), packed=False)
    assert re.search(FILES[kind][2], capfd.readouterr().err)


@pytest.mark.parametrize(
    "data", [saved, lambda s: saved(s, **OLD), lambda s: saved({k: v.half() for k, v in s.items()})]
)
def test_a_plain_state_dict_is_converted(tmp_path, monkeypatch, state, data):
    monkeypatch.chdir(tmp_path)
    converted(tmp_path, "w.pth", data(state), packed=True)
    assert safetensors.torch.load_file("out/weights.safetensors").keys() == state.keys()


def test_tied_weights_and_views_of_a_storage_are_read(tmp_path):
    """Tensors that share a storage: two names of one tensor, as of an embedding and a head.

    With slices of one storage, and a transposed tensor.
    """
    embedding, whole = torch.randn(100, 50), torch.randn(300, 20)
    state = {"embedding": embedding, "head": embedding, "transposed": embedding.T}
    state |= {
        "q": whole[:100],
        "k": whole[100:200],
        "v": whole[200:],
        "step": torch.zeros(1, 1).expand(1, 1),
    }
    torch.save(state, tmp_path / "w.pth")
    read = read_state(tmp_path / "w.pth", None, "net")
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.attack("weights")
def test_nothing_in_the_project_unpickles_what_was_downloaded():
    for path in [*(ROOT / "workflow").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called, given = (
                ast.unparse(node.func),
                {word.arg: ast.unparse(word.value) for word in node.keywords},
            )
            assert called not in (
                "pickle.load",
                "pickle.loads",
                "torch.jit.load",
                "joblib.load",
                "pd.read_pickle",
            ), path
            assert called != "torch.load" or given.get("weights_only") == "True", path
            assert given.get("allow_pickle", "False") == "False", path


def test_the_trap_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert Path("trap").is_dir()


@pytest.mark.attack("weights")
@pytest.mark.parametrize("missing", ["blocks.0.norm1.weight", "blocks.0.attn.qkv.weight"])
def test_missing_tensors_are_named_where_timm_does_not_look(missing):
    """timm loads this architecture without a check.

    Its published weights have more tensors than the architecture.
    """
    of = (
        "timm",
        "vit_base_patch16_siglip_gap_224",
        {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 64},
    )
    state = create(*of[:2], {**of[2], "num_classes": 0}).state_dict()
    more = {**state, "attn_pool.latent": torch.zeros(1)}
    assert with_weights(more, *of, "by_name", "net").state_dict().keys() == state.keys()
    del state[missing]
    with pytest.raises(UserError, match=f"missing {missing}"):
        with_weights(state, *of, "by_name", "net")


def test_names_of_a_wrapped_network_are_those_of_the_network(tmp_path, state):
    safetensors.torch.save_file(
        {f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "w.safetensors"
    )
    assert read_state(tmp_path / "w.safetensors", None, "net").keys() == state.keys()


@pytest.mark.attack("weights")
def test_pickles_are_read_only_where_torchs_advice_is_restated():
    """torch's errors recommend weights_only=False.

    Tests with damaged files show that these two modules don't.
    """
    files = [*LIBRARY.rglob("*.py"), *(ROOT / "workflow/scripts").rglob("*.py")]
    readers = [path.name for path in files if "torch.load(" in path.read_text()]
    assert sorted(readers) == ["training_state.py", "weights.py"]
