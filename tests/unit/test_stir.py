"""STIR where its value is known: linear networks, whose inversions are solved exactly."""

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch

from rib.analysis.cka import Kernel, cka
from rib.analysis.stir import write_stir
from rib.io import Progress, UserError
from rib.stir import invert, representation_of, starts

IMAGES, SIDE, WIDTH = 60, 4, 8
CPU = torch.device("cpu")


def alike(one, other):
    return cka(*(Kernel.of(part.numpy(), np.arange(len(part))) for part in (one, other)))[0]


@pytest.fixture
def seen():
    """Images, starts, and orthonormal rows that span all of the pixels' space."""
    generator = torch.Generator().manual_seed(0)
    images, start = (torch.rand((IMAGES, 3, SIDE, SIDE), generator=generator) for _ in range(2))
    rows = torch.linalg.qr(torch.randn(3 * SIDE**2, 3 * SIDE**2, generator=generator))[0].T
    return images, start, rows


def linear(matrix):
    return lambda images: (images - 0.5).flatten(1) @ matrix.T


def inverted(representation, images, start, steps=400, lr=0.05):
    progress = Progress(desc="test", total=len(images) * steps, unit="pass")
    found = invert(representation, representation(images), start, steps, lr, progress)
    assert progress.n == len(images) * steps, "passes are counted"
    return found


def test_inversion_of_a_linear_network_reaches_what_it_is_to_reach(seen):
    images, start, rows = seen
    first = linear(rows[:WIDTH])
    found, residual = inverted(first, images, start)
    assert residual.max() < 0.01 and found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(
        residual, (first(found) - first(images)).norm(dim=1) / first(images).norm(dim=1), rtol=1e-3, atol=1e-6
    )
    assert (found - images).abs().mean() > 0.1, "other images that the network can't tell apart"


def test_stir_is_1_for_a_network_that_reads_the_same_and_0_for_one_that_reads_what_the_other_ignores(seen):
    images, start, rows = seen
    found, _ = inverted(linear(rows[:WIDTH]), images, start)
    mixed = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)) @ rows[:WIDTH]
    same, other = linear(mixed), linear(rows[WIDTH : 2 * WIDTH])
    assert alike(same(images), same(found)) > 0.999
    assert abs(alike(other(images), other(found))) < 0.1
    # Direction counts: a network that reads less shares the invariances of one that reads more, not the other way round.
    less = linear(rows[: WIDTH // 4])
    assert alike(less(images), less(found)) > 0.999
    of_less, _ = inverted(less, images, start)
    assert alike(linear(rows[:WIDTH])(images), linear(rows[:WIDTH])(of_less)) < 0.7


def test_the_best_image_of_all_steps_is_kept(seen):
    images, start, rows = seen
    first = linear(rows[:WIDTH])
    unmoved, residual = inverted(first, images, start, steps=0)
    assert torch.equal(unmoved, start)
    worse, after = inverted(first, images, start, steps=5, lr=100.0)  # each step throws pixels to the range's ends
    assert (after <= residual + 1e-6).all() and torch.isfinite(worse).all()
    solved, least = inverted(first, images, images.clone(), steps=3)
    assert torch.equal(solved, images) and least.max() < 1e-5


def test_each_image_is_inverted_by_itself():
    """With a real network, in whatever batch."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=32).eval().requires_grad_(False)
    representation = representation_of(network, {"mean": [0.5] * 3, "std": [0.25] * 3}, "pre_logits", CPU)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((images - 0.5) / 0.25), pre_logits=True)
    torch.testing.assert_close(representation(images), expected)
    start = starts(images, "noise", [0.5] * 3, seed=3)
    together, residual = inverted(representation, images, start, steps=10)
    alone, _ = inverted(representation, images[:2], start[:2], steps=10)
    torch.testing.assert_close(together[:2], alone, rtol=1e-3, atol=1e-3)
    begun = (representation(start) - representation(images)).norm(dim=1) / representation(images).norm(dim=1)
    assert (residual < begun).all()


def test_starts_are_the_same_for_every_run_and_hang_on_the_seed():
    like = torch.zeros(3, 3, 4, 4)
    assert torch.equal(starts(like, "noise", [], 1), starts(like, "noise", [], 1))
    assert not torch.equal(starts(like, "noise", [], 1), starts(like, "noise", [], 2))
    grey = starts(like, "mean", [0.1, 0.2, 0.3], 0)
    assert grey.shape == like.shape and grey[2, :, 1, 3].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_layer_that_the_network_lacks_is_one_sentence():
    network = timm.create_model("test_vit", img_size=32).eval()
    representation = representation_of(network, {"mean": [0.5] * 3, "std": [0.5] * 3}, "stage9", CPU)
    with pytest.raises(UserError, match=r"stir\.layer: the network has no 'stage9', but stage1"):
        representation(torch.rand(1, 3, 32, 32))


def test_the_table_says_who_was_inverted_and_who_sees(tmp_path, seen):
    """Before reads 8 directions, after 2 of them: after shares before's invariances, and not the other way round."""
    images, start, rows = seen
    networks = {"before": linear(rows[:WIDTH]), "after": linear(rows[:2])}
    shown = {"images": images}
    stored = {}
    for when, network in networks.items():
        shown[f"inverted_{when}"], stored[f"residual_{when}"] = inverted(network, images, start, steps=200)
    stored |= {f"{when}.{name}": network(part) for when, network in networks.items() for name, part in shown.items()}
    path = tmp_path / "m/t/ft/all/2/t.safetensors"
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file(stored, path)
    pd.DataFrame({"object_id": range(IMAGES)}).to_parquet(tmp_path / "index.parquet")
    settings = {"layer": "pre_logits", "steps": 200, "conditions": "c", "confidence": 0.95}
    write_stir(features=[path], indexes=[tmp_path / "index.parquet"], table=tmp_path / "stir.csv", **settings)
    table = pd.read_csv(tmp_path / "stir.csv").set_index("reference")
    assert (table.loc["pretrained", "stir"], table.loc["pretrained", "fidelity"]) == pytest.approx((1, 1), abs=0.01)
    assert table.loc["fine-tuned", "stir"] < 0.7 < table.loc["fine-tuned", "fidelity"]
    assert table.loc["pretrained", "cka"] == table.loc["fine-tuned", "cka"]
    assert table.loc["fine-tuned", "cka"] == pytest.approx(alike(*(n(images) for n in networks.values())), abs=1e-4)
    assert (table["ci_low"] <= table["stir"]).all() and (table["stir"] <= table["ci_high"]).all()
    assert set(table["passes"]) == {IMAGES * 200} and table.loc["fine-tuned", "residual"] == pytest.approx(
        stored["residual_after"].mean().item(), abs=1e-5
    )
    with pytest.raises(UserError, match="no fine-tuned run is chosen"):
        write_stir(features=[], indexes=[], table=tmp_path / "none.csv", **settings)
