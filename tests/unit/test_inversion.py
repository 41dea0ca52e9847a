"""STIR where its value is known: linear networks, whose inversions are solved exactly."""

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import safetensors.torch
import timm
import torch

from rib.analyses.stir.tables import stir_table
from rib.analysis.cka import Kernel, cka, jackknife_interval
from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.evaluation.inversion import invert, representation_of, starts
from tiny.tables import write
from tiny.training import CPU

IMAGES, SIDE, WIDTH = 60, 4, 8


def alike(one, other):
    return cka(*(Kernel.of(part.numpy(), np.arange(len(part)), "a") for part in (one, other)))[0]


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
    expected = (first(found) - first(images)).norm(dim=1) / first(images).norm(dim=1)
    torch.testing.assert_close(residual, expected, rtol=1e-3, atol=1e-6)
    assert (found - images).abs().mean() > 0.1, "other images that the network can't tell apart"


def test_stir_is_1_for_one_that_reads_the_same_and_0_for_one_that_reads_what_the_other_ignores(
    seen,
):
    images, start, rows = seen
    found, _ = inverted(linear(rows[:WIDTH]), images, start)
    mixed = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)) @ rows[:WIDTH]
    same, other = linear(mixed), linear(rows[WIDTH : 2 * WIDTH])
    assert alike(same(images), same(found)) > 0.999
    assert abs(alike(other(images), other(found))) < 0.1
    # Direction counts: a network that reads less shares the invariances of one that reads more, not
    # the other way round.
    less = linear(rows[: WIDTH // 4])
    assert alike(less(images), less(found)) > 0.999
    of_less, _ = inverted(less, images, start)
    assert alike(linear(rows[:WIDTH])(images), linear(rows[:WIDTH])(of_less)) < 0.7


def test_the_best_image_of_all_steps_is_kept(seen):
    images, start, rows = seen
    first = linear(rows[:WIDTH])
    unmoved, residual = inverted(first, images, start, steps=0)
    assert torch.equal(unmoved, start)
    worse, after = inverted(
        first, images, start, steps=5, lr=100.0
    )  # each step throws pixels to the range's ends
    assert (after <= residual + 1e-6).all() and torch.isfinite(worse).all()
    solved, least = inverted(first, images, images.clone(), steps=3)
    assert torch.equal(solved, images) and least.max() < 1e-5


def test_each_image_is_inverted_by_itself():
    """With a real network, in whatever batch."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=32).eval().requires_grad_(False)
    representation = representation_of(
        network, {"mean": [0.5] * 3, "std": [0.25] * 3}, "pre_logits", CPU
    )
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.forward_head(
            network.forward_features((images - 0.5) / 0.25), pre_logits=True
        )
    torch.testing.assert_close(representation(images), expected)
    start = starts(images, "noise", [0.5] * 3, seed=3)
    together, residual = inverted(representation, images, start, steps=10)
    alone, _ = inverted(representation, images[:2], start[:2], steps=10)
    torch.testing.assert_close(together[:2], alone, rtol=1e-3, atol=1e-3)
    begun = (representation(start) - representation(images)).norm(dim=1) / representation(
        images
    ).norm(dim=1)
    assert (residual < begun).all()


def test_starts_are_the_same_for_every_run_and_depend_on_the_seed():
    like = torch.zeros(3, 3, 4, 4)
    assert torch.equal(starts(like, "noise", [], 1), starts(like, "noise", [], 1))
    assert not torch.equal(starts(like, "noise", [], 1), starts(like, "noise", [], 2))
    grey = starts(like, "mean", [0.1, 0.2, 0.3], 0)
    assert grey.shape == like.shape and grey[2, :, 1, 3].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_layer_that_the_network_lacks_is_refused():
    network = timm.create_model("test_vit", img_size=32).eval()
    representation = representation_of(
        network, {"mean": [0.5] * 3, "std": [0.5] * 3}, "stage9", CPU
    )
    with pytest.raises(UserError, match=r"stir\.layer.*'stage9'.*stage1"):
        representation(torch.rand(1, 3, 32, 32))


def test_every_number_of_the_table_is_that_of_its_features(tmp_path):
    """Random features of two runs, with two images of some objects.

    Each reference has its own inversions and residuals.
    """
    rng = np.random.default_rng(0)
    objects, paths, indexes, stored = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [], [], {}
    for run in ("m/t/ft/10/2", "n/u/lwf/all/0"):
        common = rng.normal(size=(12, 4))
        shown = ("images", "inverted_before", "inverted_after")
        kinds = [f"{when}.{what}" for when in ("before", "after") for what in shown]
        features = {
            kind: common + rng.normal(size=(12, 4)) * (place + 1) / 4
            for place, kind in enumerate(kinds)
        }
        stored[run] = {
            **{kind: part.astype(np.float32) for kind, part in features.items()},
            **{
                f"residual_{when}": rng.random(12).astype(np.float32)
                for when in ("before", "after")
            },
        }
        path = tmp_path / run / "t.safetensors"
        path.parent.mkdir(parents=True)
        safetensors.numpy.save_file(stored[run], path)
        pd.DataFrame({"object_id": objects, "more": 1}).to_parquet(path.with_suffix(".parquet"))
        paths.append(path)
        indexes.append(path.with_suffix(".parquet"))
    settings = {"layer": "stage4", "steps": 7, "conditions": "c", "confidence": 0.9}
    write(
        stir_table,
        features=iter(paths),
        indexes=iter(indexes),
        table=tmp_path / "stir.csv",
        **settings,
    )
    table = pd.read_csv(tmp_path / "stir.csv", dtype={"size": str})
    assert list(table) == [
        *("model", "method", "target", "size", "seed", "dataset", "layer", "reference", "n"),
        *("stir", "ci_low", "ci_high"),
        *("cka", "cka_low", "cka_high", "fidelity", "residual", "passes", "conditions"),
    ]
    assert table.iloc[:, :9].to_numpy().tolist() == [
        [*run, "t", "stage4", reference, 12]
        for run in (("m", "ft", "t", "10", 2), ("n", "lwf", "u", "all", 0))
        for reference in ("pretrained", "fine-tuned")
    ]
    for line in table.itertuples():
        own = stored[f"{line.model}/{line.target}/{line.method}/{line.size}/{line.seed}"]
        kernels = {
            name: Kernel.of(part, np.array(objects), "a")
            for name, part in own.items()
            if "." in name
        }
        when, other = ("before", "after") if line.reference == "pretrained" else ("after", "before")
        pairs = {
            "stir": (f"{other}.images", f"{other}.inverted_{when}"),  # seen by the other network
            "fidelity": (f"{when}.images", f"{when}.inverted_{when}"),
            "cka": ("before.images", "after.images"),
        }
        found = {name: cka(*(kernels[part] for part in pair)) for name, pair in pairs.items()}
        for name, values in found.items():
            assert getattr(line, name) == pytest.approx(values[0], abs=1e-6)
        assert (line.ci_low, line.ci_high) == pytest.approx(
            jackknife_interval(found["stir"], 0.9), abs=1e-6
        )
        assert (line.cka_low, line.cka_high) == pytest.approx(
            jackknife_interval(found["cka"], 0.9), abs=1e-6
        )
        assert line.residual == pytest.approx(own[f"residual_{when}"].mean(), abs=1e-6)
        assert line.passes == 12 * 7 and line.conditions == "c"
    few = {name: part[:4] for name, part in stored["m/t/ft/10/2"].items()}
    safetensors.numpy.save_file(few, paths[0])
    pd.DataFrame({"object_id": objects[:4]}).to_parquet(indexes[0])
    with pytest.raises(UserError, match=r"^t: .*4 images"):
        write(
            stir_table,
            features=paths[:1],
            indexes=indexes[:1],
            table=tmp_path / "none.csv",
            **settings,
        )
    with pytest.raises(UserError, match="no fine-tuned run"):
        write(stir_table, features=[], indexes=[], table=tmp_path / "none.csv", **settings)
    assert not (tmp_path / "none.csv").exists()
