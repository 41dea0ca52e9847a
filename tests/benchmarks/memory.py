"""Memory of networks. rib.grid.memory estimates from it what jobs need.

    python tests/benchmarks/memory.py activations   # makes workflow/catalog/activations.csv
    python tests/benchmarks/memory.py jobs          # peaks of jobs, to compare with the estimates

Weights are random, which does not affect the memory. Activations are what a forward pass keeps for
the backward pass, counted on a CPU as torch saves it. Peaks are of the resident memory of a process
that does the work of one job on a CPU, on ViTs with patches of 32 pixels, which have as many
parameters as those of 16 but take little time.
"""

import csv
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "workflow/lib"), str(ROOT / "tests")]

TABLE = ROOT / "workflow/catalog/activations.csv"
COLUMNS = ("architecture", "side", "fp32", "bf16", "checkpointed_fp32", "checkpointed_bf16")
# Architecture and side of jobs that are measured.
NETWORKS = ("vit_small_patch32_224", "vit_base_patch32_224", "vit_large_patch32_224")
SIDE = 224
WORK = ("train", "train_adamw", "train_teacher", "evaluate", "merge2", "merge8", "features")
BATCHES = (2, 16)  # images per step
EVALUATED = 64  # images per forward pass of evaluation


def saved_bytes(network, tensors: dict, images, in_bf16: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, without the network's own tensors.

    Args:
        tensors: parameters and buffers by name, which stand in for those of the network.
    """
    import torch

    own = {identity(tensor) for tensor in [*tensors.values(), images]}
    bytes_of_storages = {}
    kept = []  # so that no storage takes the identity of another one

    def pack(tensor):
        if identity(tensor) not in own:
            bytes_of_storages[identity(tensor)] = tensor.untyped_storage().nbytes()
            kept.append(tensor.detach())
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=in_bf16),
    ):
        output = torch.func.functional_call(network, tensors, (images,))
    del output
    return sum(bytes_of_storages.values())


def identity(tensor) -> int:
    """What tells a tensor's storage from others; a tensor without numbers has no address."""
    return tensor.untyped_storage()._cdata


def bytes_per_image(network, side: int, in_bf16: bool) -> int:
    """Bytes that each further image of a batch adds; weights in bf16 are there once.

    Tensors have shapes but no numbers, so nothing is computed.

    Args:
        network: without memory for its weights, on torch's device `meta`.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        tensors = {}
        for name, parameter in network.named_parameters():
            tensors[name] = torch.empty(parameter.shape, requires_grad=True)
        for name, buffer in network.named_buffers():
            tensors[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        # One image is too few for a BatchNorm of a single position.
        two_images, three_images = (
            saved_bytes(network, tensors, torch.empty(images, 3, side, side), in_bf16)
            for images in (2, 3)
        )
    return three_images - two_images


def architectures() -> Iterator[tuple[str, str, dict, int]]:
    """Library, architecture, arguments and side of the catalogue's networks, each one once.

    Those that a record of hub.lock.json describes are among them.
    """
    from rib.catalog.catalog import Catalog

    catalog = Catalog([TABLE.parent])
    listed = set()
    for model in catalog.models.values():
        if model.architecture not in listed:
            listed.add(model.architecture)
            side = model.preprocessing.input_size
            yield model.library, model.architecture, model.arguments, side
    for record in catalog.lock.models.values():
        if record["architecture"] not in listed:
            listed.add(record["architecture"])
            side = record["preprocessing"]["input_size"]
            yield record["library"], record["architecture"], record["arguments"], side


def write_activations() -> None:
    """Make the table of activations: MB per image, by architecture."""
    import torch

    from rib.models.network import build

    all_architectures = list(architectures())
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for library, architecture, arguments, side in all_architectures:
            with torch.device("meta"):
                network = build(library, architecture, arguments=arguments).train()
            row = {"architecture": architecture, "side": side}
            for prefix in ("", "checkpointed_"):
                if prefix and not has_checkpointing(network):
                    continue
                for precision in ("fp32", "bf16"):
                    saved = bytes_per_image(network, side, precision == "bf16")
                    row[prefix + precision] = round(saved / 1e6, 1)
            writer.writerow(row)
            file.flush()
            print(row)


def has_checkpointing(network) -> bool:
    """Switch on gradient checkpointing; False if the network has none."""
    from rib.training.gradient_checkpointing import checkpoint_gradients

    try:
        checkpoint_gradients(network, SimpleNamespace(batch_norm="frozen"))
    except ValueError:
        return False
    return True


def measure_jobs() -> None:
    """Print the peak memory of the work of jobs, in MB."""
    for architecture in NETWORKS:
        for work in WORK:
            batches = BATCHES if work == "train" else BATCHES[:1]
            for batch in batches:
                with tempfile.TemporaryDirectory() as folder:
                    peaks = [
                        peak_of_child(step, architecture, work, batch, folder)
                        for step in ("prepare", "work")
                    ]
                print(f"{architecture} {work} batch {batch}: {peaks[-1]:.0f} MB", flush=True)


def peak_of_child(step: str, architecture: str, work: str, batch: int, folder: str) -> float:
    """Peak resident memory of a process of this script, in MB."""
    command = [sys.executable, __file__, step, architecture, work, str(batch), folder]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(output.split()[-1])


def prepare(architecture: str, work: str, images: int, folder: Path) -> None:
    """Write what a job reads: a model, images, and checkpoints of parents."""
    import safetensors.torch
    import timm
    import torch

    from rib.base.files import write_json
    from tiny.models.training import HALF, prepared_folder, random_images

    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=1000)
    state = network.state_dict()
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    preprocessing = {"mean": HALF, "std": HALF}
    facts = {
        "library": "timm",
        "architecture": architecture,
        "arguments": {},
        "num_classes": 1000,
        "preprocessing": preprocessing,
    }
    write_json(folder / "model.json", facts)
    if work in ("evaluate", "features"):
        images = EVALUATED
    prepared_folder(folder / "target", random_images(images, SIDE))
    parents = {"merge2": 2, "merge8": 8, "evaluate": 1, "features": 1}.get(work, 0)
    for number in range(parents):
        changed = {
            name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in state.items()
        }
        safetensors.torch.save_file(changed, folder / f"{number}.safetensors")


def do_work(architecture: str, work: str, batch: int, folder: Path) -> None:
    """Do the work of one job on a CPU."""
    from rib.base.files import read_json
    from rib.models import device as devices
    from rib.models.images import Images
    from tiny.models.training import COMPUTE

    device = devices.start(COMPUTE)
    if work.startswith("train"):
        train(work, batch, folder)
        return
    from rib.base.progress import Progress
    from rib.data.dataset import PreparedDataset
    from rib.evaluation.features import features_of
    from rib.evaluation.score import score
    from rib.models.state import network_in_state

    dataset = PreparedDataset.open(folder / "target", "bench")
    inputs = Images(dataset, read_json(folder / "model.json")["preprocessing"], device)
    checkpoints = {f"ft, seed {path.stem}": path for path in folder.glob("[0-9].safetensors")}
    coefficients = dict.fromkeys(checkpoints, 1 / len(checkpoints))
    network = network_in_state(folder, coefficients, checkpoints, inputs)
    if work == "features":
        features_of(network, inputs, EVALUATED, "features")
    else:
        progress = Progress(desc="score", total=len(inputs), unit="image")
        score([network], inputs, dataset, EVALUATED, progress)


def train(work: str, batch: int, folder: Path) -> None:
    """Do the work of a training of one step, as the job does."""
    from rib.data.view import DatasetFiles, DatasetView
    from rib.schema.geometry import Geometry
    from rib.schema.method_facts import MethodFacts
    from rib.schema.run import ALL, Run
    from rib.training.finetune import finetune
    from rib.training.training_settings import FineTuningSettings
    from tiny.changed import replace
    from tiny.models.training import CODE, COMPUTE, TRAINING

    method = "self_distillation" if work == "train_teacher" else "ft"
    settings = {"lr": 1e-4}
    if work == "train_teacher":
        settings.update(average="ema", temperature=2.0, weight=1.0)
    training = replace(TRAINING, epochs=1, batch_size=batch)
    if work == "train_adamw":
        training = replace(training, optimizer="adamw")
    finetune(
        run=Run("m", "t", method, ALL, 0),
        model_folder=folder,
        start={},
        target=DatasetFiles(name="t", folder=folder / "target"),
        settings=FineTuningSettings(
            algorithm=str(ROOT / f"workflow/lib/rib/methods/{method}.py"),
            settings=settings,
            facts=MethodFacts(),
            parents=(),
            training=training,
            view=DatasetView(
                geometry=Geometry(SIDE, 1.0, "bicubic"), budget=ALL, images_per_class=None
            ),
            compute=COMPUTE,
            code=CODE,
        ),
        checkpoint=folder / "checkpoint.safetensors",
        history=folder / "history.csv",
        manifest=folder / "manifest.json",
        saved=folder / "state.pt",
        rescue=folder / "rescue.safetensors",
    )


def main() -> None:
    """Do what the command line says; see the docstring of the module."""
    step, *rest = sys.argv[1:]
    if step == "activations":
        write_activations()
    elif step == "jobs":
        measure_jobs()
    else:
        architecture, work, batch, folder = rest
        function = prepare if step == "prepare" else do_work
        function(architecture, work, int(batch), Path(folder))
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(kilobytes * 1024 / 1e6)


if __name__ == "__main__":
    main()
