"""Publish networks that were pretrained by the workflow: python data/networks/publish.py RESULTS

RESULTS is a folder such as results/fashion, with `models/<name>/` of each network and prepared
datasets. Each network is written beside this file in half precision, and README.md says how it was
made, and how many images of each dataset it gets right as it is in the file. The files have the
same bytes whenever this is called on the same networks.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.files import read_json
from rib.models.network import load

FOLDER = Path(__file__).parent
DATASETS = {
    "fashion": "in distribution",
    "fashion_edges": "edges",
    "fashion_cartoon": "cartoon",
    "fashion_drawing": "drawing",
    "fashion_corrupted": "corrupted",
    "fashion_tilted": "tilted",
    "fashion_background": "background",
    "fashion_recoloured": "recoloured",
    "fashion_adversarial": "adversarial",
}
BATCH = 500  # images per forward pass
INTRODUCTION = """\
# Networks of the fashion family

Small networks that this project pretrained on images of Fashion-MNIST, from random initial weights.
Licence: MIT, as the images have. The tensors of a file, in half precision, are the network.
`publish.py` wrote the files and this page.

All were pretrained with AdamW (recipe `adamw` of `workflow/catalog/recipes.yaml`), a batch size of
128 and random shifts of up to two pixels, in the number of steps below; `broad` is the augmentation
of `workflow/catalog/augmentations.yaml`. Seconds are of one thread of the processor that made
them. Accuracies are in percent. Pinned digests are in `workflow/catalog/models.yaml`.

`snakemake pretrain_again` trains the networks of a run by their recipes. On the same kind of
processor they come out the same; on another they don't, since rounding differs and training
amplifies that. Made again with the instruction set AVX in place of AVX2, `fashion_cnn_1k` and
`fashion_cnn_50k` are within 0.8 points of the published ones in distribution, and differ from them
by up to 2.9 and 8.1 points on one of the other sets. With an earlier recipe of 2,000 steps,
networks of one seed that three machines made gave an mRI of full fine-tuning of +7.1, +9.5 and
+11.4. That is why the networks are published.
"""


def half_precision(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in half precision; whole numbers, such as counts of batches, stay as they are."""
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


@torch.inference_mode()
def accuracy(network: nn.Module, prepared: Path) -> float:
    """Accuracy of a network on a prepared dataset, in percent.

    Classes are the network's outputs, and images are normalised to -1 to 1.
    """
    images = np.load(prepared / "images.npy", mmap_mode="r")
    index = pd.read_parquet(prepared / "index.parquet", columns=["label"])
    labels = torch.from_numpy(index["label"].to_numpy(copy=True))
    correct = 0
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images[start : start + BATCH].copy()).permute(0, 3, 1, 2)
        predictions = network(pixels.float() / 127.5 - 1).argmax(1)
        correct += int((predictions == labels[start : start + BATCH]).sum())
    return 100 * correct / len(images)


def publish(name: str, results: Path) -> dict[str, str]:
    """Write one network; gives its row of the table in README.md."""
    folder = results / "models" / name
    file = FOLDER / f"{name}.safetensors"
    published = half_precision(safetensors.torch.load_file(folder / "weights.safetensors"))
    safetensors.torch.save_file(published, file)
    network, facts = load(folder, torch.device("cpu"))
    network.load_state_dict(safetensors.torch.load_file(file))
    pretraining = facts["source"]["pretrain"]
    record = read_json(folder / "provenance.json")
    row = {
        "file": f"`{file.name}`",
        "architecture": facts["architecture"],
        "images": f"{facts['trained']['images']:,}",
        "augmentation": "broad" if "augmentation" in pretraining else "none",
        "learning rate": f"{pretraining['lr']:g}",
        "steps": f"{pretraining['steps']:,}",
        "seed": str(pretraining["seed"]),
        "seconds": f"{record['cpu_seconds']:.0f}",
    }
    for dataset, label in DATASETS.items():
        (prepared,) = (results / "prepare" / dataset).iterdir()
        row[label] = f"{accuracy(network.eval(), prepared):.1f}"
    return row


def main() -> None:
    """Publish all networks of a results folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    names = sorted(path.parent.name for path in results.glob("models/*/weights.safetensors"))
    rows = [publish(name, results) for name in names]
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *(list(row.values()) for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    (FOLDER / "README.md").write_text(f"{INTRODUCTION}\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
