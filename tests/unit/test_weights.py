"""Weights that are not what they should be.

They get one sentence each, and nothing that they contain is run.
"""

import ast
import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from rib.base.errors import UserError
from rib.jobs.job import job
from rib.models.convert import convert
from rib.models.model_settings import ConversionSettings
from rib.models.network import create
from rib.models.weights import read_state, with_weights
from tiny.models.training import CODE, COMPUTE
from tiny.projects.project import ROOT

SIDE = 160
WEIGHT = "conv_stem.weight"  # the tensor that is changed where one is
OLD = {"_use_new_zipfile_serialization": False}
# What torch's own messages advise, and no message of ours may.
TORCHS_ADVICE = "weights_only|torch.load|jit.load|trust|allowlist|safe_globals"
State = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def state():
    """The state dict of a small network for ten classes; do not change it."""
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", num_classes=10).state_dict()


class Trap:
    """Leaves a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trap",)


def saved(value, **options):
    """Bytes of a file that `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def with_weight(state, weight):
    """A state dict with another tensor in place of the first convolution's weights."""
    return {**state, WEIGHT: weight}


def with_tensor(state, tensor):
    """A state dict with one tensor more, x, that the network doesn't know."""
    return {**state, "x": tensor}


def deflated(data):
    """A zip as torch writes it, with its parts compressed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as stored,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for part in stored.infolist():
            compressed.writestr(part.filename, stored.read(part))
    return buffer.getvalue()


@dataclass(frozen=True)
class BadFile:
    """A file of weights that is refused."""

    name: str
    content: Callable[[State], bytes]  # from the state dict of the network
    sentence: str  # a pattern of what is said


FILES: dict[str, BadFile] = {}


def bad_file(kind, sentence, name="w.pth"):
    """Decorates a function from a state dict to the bytes of a file that is refused.

    Args:
        kind: what is wrong with the file, in words; its test's id.
        sentence: a pattern of what is said of it.
        name: what the file is called.
    """

    def register(content):
        FILES[kind] = BadFile(name, content, sentence)
        return content

    return register


# Tensors of another type, value or shape


@bad_file("integers", f"'{WEIGHT}'.*int32")
def weight_of_integers(state):
    return saved(with_weight(state, state[WEIGHT].int()))


@bad_file("NaN", f"'{WEIGHT}'.*NaN")
def weight_of_nan(state):
    return saved(with_weight(state, state[WEIGHT] * float("nan")))


@bad_file("another shape", f"{WEIGHT}.*shape")
def weight_of_another_shape(state):
    return saved(with_weight(state, torch.zeros(3)))


@bad_file("too large for its type", f"'{WEIGHT}'.*infinite")
def weight_above_single_precision(state):
    weight = torch.full_like(state[WEIGHT], 1e300, dtype=torch.float64)
    return saved(with_weight(state, weight))


# Files that are cut off, or of another format


@bad_file("TorchScript", "TorchScript", name="w.pt")
def scripted_network(state):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


@bad_file("truncated zip", "truncated")
def zip_without_its_end(state):
    return saved(state)[:-2000]


@bad_file("truncated pickle", "truncated")
def pickle_without_its_end(state):
    return saved(state, **OLD)[:-2000]


@bad_file("empty file", "truncated")
def empty_file(state):
    return b""


@bad_file("web page", "don't use")
def web_page(state):
    return b"<html>Log in</html>"


@bad_file("compressed tensors", "damaged")
def compressed_tensors(state):
    return deflated(saved(state))


# What is no state dict


@bad_file("bare tensor", "Tensor with no named tensors")
def bare_tensor(state):
    return saved(torch.zeros(4))


@bad_file("empty dict", "dict with no named tensors")
def empty_dict(state):
    return saved({})


@bad_file("nested in state_dict", r"'state_dict' \(OrderedDict\)")
def nested_in_state_dict(state):
    return saved({"epoch": 3, "state_dict": state})


@bad_file("text among tensors", r"'author' \(str\)")
def text_among_tensors(state):
    return saved({**state, "author": "me"})


@bad_file("numbers for names", r"dict with int in place of a name; save its state dict")
def numbers_for_names(state):
    return saved(dict(enumerate(state.values())))


# Tensors that are stored otherwise than number by number


@bad_file("sparse tensors", r"'x' \(Tensor\)")
def sparse_tensor(state):
    return saved(with_tensor(state, torch.eye(3).to_sparse()))


@bad_file("tensors without data", r"'x' \(Tensor\)")
def tensor_without_data(state):
    return saved(with_tensor(state, torch.zeros(3, device="meta")))


def eight_gigabytes_from_one_number():
    """A tensor of 8 GB, of which one number of 4 bytes is stored."""
    return torch.zeros(1).expand(50_000, 40_000)


@bad_file("4 bytes as 8 GB", "'x'.*stored")
def one_number_as_eight_gigabytes(state):
    return saved(with_tensor(state, eight_gigabytes_from_one_number()))


@bad_file("4 bytes as 8 GB, old format", "'x'.*stored")
def one_number_as_eight_gigabytes_in_the_old_format(state):
    return saved(with_tensor(state, eight_gigabytes_from_one_number()), **OLD)


@bad_file("overlapping rows", "'x'.*stored")
def overlapping_rows(state):
    return saved(with_tensor(state, torch.zeros(2000).as_strided((1000, 1000), (1, 1))))


@bad_file("a thousand names of one tensor", "2 times")
def thousand_names_of_one_tensor(state):
    names = [str(number) for number in range(1000)]
    return saved({**state, **dict.fromkeys(names, torch.zeros(100_000))})


@bad_file("a head of no width for a billion classes", "classifier.weight.*shape")
def head_of_no_width(state):
    return saved({**state, "classifier.weight": torch.zeros(10**9, 0)})


@bad_file("a head of no shape", "classifier.weight.*shape")
def head_of_no_shape(state):
    return saved({**state, "classifier.weight": torch.tensor(1.0)})


# Pickled code


@bad_file("pickled code", "never loaded")
def pickled_code(state):
    return saved({**state, "x": Trap()})


@bad_file("pickled code, old format", "never loaded")
def pickled_code_in_the_old_format(state):
    return saved({**state, "x": Trap()}, **OLD)


@bad_file("plain pickle", "never loaded")
def plain_pickle(state):
    return pickle.dumps(Trap())


@bad_file("pickled network", "never loaded")
def pickled_network(state):
    return saved(torch.nn.Linear(2, 2))


# Safetensors


@bad_file("truncated safetensors", "truncated", name="w.safetensors")
def safetensors_without_its_end(state):
    return safetensors.torch.save(state)[:-100]


@bad_file("safetensors without tensors", "no named tensors", name="w.safetensors")
def safetensors_without_tensors(state):
    return safetensors.torch.save({})


@bad_file("pickle named safetensors", "another format", name="w.safetensors")
def pickle_named_safetensors(state):
    return saved({"x": Trap()})


def entry_of(archive, member):
    """The catalogue entry of a network whose weights are in an archive.

    Args:
        archive: path of the file that is downloaded.
        member: the file of weights in it; None if the archive is that file.
    """
    weights = {"keys": "by_name"}
    if member is not None:
        weights["member"] = member
    return {
        "name": "net",
        "library": "timm",
        "architecture": "test_efficientnet",
        "arguments": {},
        "tokenizer": [],
        "pretraining": "none",
        "licence": "none",
        "source": {"kind": "file", "path": str(archive), "file": archive.name},
        "weights": weights,
        "preprocessing": {"input_size": SIDE},
    }


def convert_archive(archive, member=None):
    """Run the job that converts a file of weights, by itself or in an archive.

    It writes out/ and net.log in the working folder.
    """
    outputs = {"weights": "out/weights.safetensors", "description": "out/model.json"}
    settings = ConversionSettings(
        entry=entry_of(archive, member),
        head="published",
        num_classes=10,
        class_names=None,
        view=None,
        compute=COMPUTE,
        code=CODE,
    )
    with job(
        rule="convert", name="net", cfg={}, inputs={}, outputs=outputs, log_file="net.log"
    ) as out:
        convert(
            archives=[archive],
            reference=None,
            settings=settings,
            **out,
        )


def convert_file(name, content):
    """Run the job that converts a file with this content."""
    path = Path.cwd() / name
    path.write_bytes(content)
    convert_archive(path)


def convert_packed(name, content):
    """Run the job that converts a file with this content in an archive, package.zip."""
    archive = Path.cwd() / "package.zip"
    member = f"weights/{name}"
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr(member, content)
    convert_archive(archive, member)


@pytest.mark.parametrize("kind", FILES)
def test_weights_are_refused_with_a_sentence_that_names_file_and_key(
    tmp_path, monkeypatch, capfd, state, kind
):
    # given
    monkeypatch.chdir(tmp_path)
    bad = FILES[kind]
    content = bad.content(state)
    is_safetensors = bad.name.endswith("safetensors")
    convert_bad = convert_file if is_safetensors else convert_packed
    # when
    with pytest.raises(SystemExit):
        convert_bad(bad.name, content)
    # then: one line, with its place
    printed = capfd.readouterr().err
    assert re.search(rf"^convert net: net: .*({bad.sentence})", printed)
    assert printed.count("\n") == 1
    archive = "w.safetensors" if is_safetensors else "package.zip"
    assert any(place in printed for place in (archive, "architecture", f"'{WEIGHT}'"))
    # and neither torch's advice nor a traceback
    log = Path("net.log").read_text()
    assert "Traceback" not in log
    for text in (printed, log):
        assert not re.search(TORCHS_ADVICE, text)
    # and nothing was run or made
    assert not Path("trap").exists()
    assert not Path("out").exists()


def in_half_precision(state):
    """A state dict with tensors of float16."""
    return {name: tensor.half() for name, tensor in state.items()}


def test_numbers_in_safetensors_are_checked_too(tmp_path, monkeypatch, capfd, state):
    monkeypatch.chdir(tmp_path)
    not_finite = with_weight(state, state[WEIGHT] * float("nan"))
    with pytest.raises(SystemExit):
        convert_file("w.safetensors", safetensors.torch.save(not_finite))
    assert re.search(f"'{WEIGHT}'.*NaN", capfd.readouterr().err)


@pytest.mark.parametrize(
    "data",
    [saved, lambda state: saved(state, **OLD), lambda state: saved(in_half_precision(state))],
)
def test_a_plain_state_dict_is_converted(tmp_path, monkeypatch, state, data):
    monkeypatch.chdir(tmp_path)
    convert_packed("w.pth", data(state))
    converted = safetensors.torch.load_file("out/weights.safetensors")
    assert converted.keys() == state.keys()


def test_tied_weights_and_views_of_a_storage_are_read(tmp_path):
    """Tensors that share a storage: two names of one tensor, as of an embedding and a head.

    With slices of one storage, and a transposed tensor.
    """
    embedding = torch.randn(100, 50)
    queries_keys_values = torch.randn(300, 20)
    state = {
        "embedding": embedding,
        "head": embedding,
        "transposed": embedding.T,
        "q": queries_keys_values[:100],
        "k": queries_keys_values[100:200],
        "v": queries_keys_values[200:],
        "step": torch.zeros(1, 1).expand(1, 1),
    }
    torch.save(state, tmp_path / "w.pth")

    read = read_state(tmp_path / "w.pth", None, "net")

    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(read[name], tensor), name


def calls_in(path):
    """The calls in a module: of each what is called, and its keyword arguments, as text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield ast.unparse(node.func), keywords


READERS_OF_PICKLES = (
    "pickle.load",
    "pickle.loads",
    "torch.jit.load",
    "joblib.load",
    "pd.read_pickle",
)


def test_nothing_in_the_project_unpickles_what_was_downloaded():
    called_anywhere = set()
    for path in (ROOT / "workflow").rglob("*.py"):
        for called, keywords in calls_in(path):
            called_anywhere.add(called)
            assert called not in READERS_OF_PICKLES, path
            if called == "torch.load":
                assert keywords.get("weights_only") == "True", path
            assert keywords.get("allow_pickle", "False") == "False", path
    assert "torch.load" in called_anywhere


def test_the_trap_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert Path("trap").is_dir()


@pytest.mark.parametrize("missing", ["blocks.0.norm1.weight", "blocks.0.attn.qkv.weight"])
def test_missing_tensors_are_named_where_timm_does_not_look(missing):
    """timm loads this architecture without a check.

    Its published weights have more tensors than the architecture.
    """
    # given
    library = "timm"
    architecture = "vit_base_patch16_siglip_gap_224"
    arguments = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 64}

    def load(state):
        return with_weights(state, library, architecture, arguments, "by_name", "net")

    state = create(library, architecture, {**arguments, "num_classes": 0}).state_dict()
    # when there are more tensors
    published_state = {**state, "attn_pool.latent": torch.zeros(1)}
    # then those of the architecture are loaded
    assert load(published_state).state_dict().keys() == state.keys()
    # when one is missing
    del state[missing]
    # then it is named
    with pytest.raises(UserError, match=f"missing {missing}"):
        load(state)


def test_a_head_for_a_billion_classes_is_not_built(state):
    hostile_state = {**state, "classifier.weight": torch.zeros(10**9, 0)}
    with pytest.raises(UserError, match="^net: .*'num_classes' is 1000000000; "):
        with_weights(hostile_state, "timm", "test_efficientnet", {}, "by_name", "net")


def test_names_of_a_wrapped_network_are_those_of_the_network(tmp_path, state):
    path = tmp_path / "w.safetensors"
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    safetensors.torch.save_file(wrapped, path)
    assert read_state(path, None, "net").keys() == state.keys()
