"""Which finished runs of an unfinished grid a preview shows, and the grid that they make up."""

import itertools
import random

import pytest

from rib.base.errors import UserError
from rib.grid.paths import Paths, beside
from rib.report.preview import Variant, VariantOnTarget, common_targets, finished_runs
from rib.schema.run import PRETRAINED, Run
from tiny.projects.grids import grid


def test_what_is_compared_has_the_same_targets_for_each_method():
    variants = [
        Variant(*names) for names in itertools.product("ab", ["ft", "lwf", "lora"], ["all"])
    ]
    all_cells = [VariantOnTarget(*pair) for pair in itertools.product(variants, ["x", "y", "z"])]
    for seed in range(50):
        random_numbers = random.Random(seed)
        cells = random_numbers.sample(all_cells, k=random_numbers.randint(1, len(all_cells)))
        compared = set(common_targets(cells))
        variants_and_targets = itertools.product(
            {cell.variant for cell in compared}, {cell.target for cell in compared}
        )
        assert compared and compared <= set(cells)
        assert compared == {VariantOnTarget(*pair) for pair in variants_and_targets}
        most_of_one_target = max(sum(cell.target == target for cell in cells) for target in "xyz")
        assert len(compared) >= most_of_one_target
    assert set(common_targets(all_cells)) == set(all_cells), "of a finished grid, everything"


@pytest.fixture(scope="module")
def whole():
    return grid(
        family="fashion",
        protocol="held_out",
        models=["fashion_cnn_1k", "fashion_cnn_50k"],
        targets=["fashion_edges", "fashion_drawing"],
        methods=["ft", "wise_ft", "linear_probe"],
        method_settings={"ft": {"lr": [0.01, 0.02, 0.03]}},
        train_subset=["all", 20],
        seeds=[0, 1],
        select="leave_one_out",
    )


def test_the_grid_of_all_runs_is_the_whole_grid(whole):
    again = whole.of_runs(whole.runs())
    assert again.runs() == whole.runs()
    for attribute in ("models", "methods", "targets", "sizes", "selection", "seeds", "ood"):
        assert getattr(again, attribute) == getattr(whole, attribute)
    assert all(again.methods_of(name) == whole.methods_of(name) for name in whole.models)


def test_the_grid_of_some_runs_has_only_what_they_have_in_the_order_of_the_grid(whole):
    """As in a preview during a sweep, in which the models have other methods finished."""
    methods_of_model = {
        "fashion_cnn_1k": ["ft-lr0.01", "linear_probe"],
        "fashion_cnn_50k": ["ft-lr0.02", "ft-lr0.01"],
    }
    runs = [Run(model, "none", PRETRAINED, "all", 0) for model in methods_of_model]
    for model, methods in methods_of_model.items():
        for method, seed in itertools.product(methods, (1, 0)):
            runs.append(Run(model, "fashion_drawing", method, "20", seed))
    part = whole.of_runs(runs)
    assert set(part.runs()) == set(runs) and len(part.runs()) == len(runs)
    assert part.runs() == [run for run in whole.runs() if run in runs]
    assert part.methods_of("fashion_cnn_1k") == [
        name for name in whole.methods if name in methods_of_model["fashion_cnn_1k"]
    ]
    assert (part.targets, part.sizes, part.shown_size) == (["fashion_drawing"], ["20"], "20")
    assert part.selection.variants == {"ft": ["ft-lr0.01", "ft-lr0.02"]}
    assert part.datasets == whole.datasets and part.ood == whole.ood


def test_a_sweep_of_which_one_variant_is_finished_has_no_choice(whole):
    runs = [run for run in whole.runs() if run.method in (PRETRAINED, "ft-lr0.01", "linear_probe")]
    assert whole.of_runs(runs).selection is None


def test_a_run_counts_when_all_its_seeds_and_its_pretrained_model_are_evaluated(
    whole, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run is finished"):
        finished_runs(whole)

    def evaluate(*runs):
        """Leave files as the jobs of runs do."""
        for rows in Paths(whole).rows(runs):
            for path in (rows, beside("manifest", rows)):
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).touch()

    pretrained = Run("fashion_cnn_1k", "none", PRETRAINED, "all", 0)
    one_seed = Run("fashion_cnn_1k", "fashion_edges", "linear_probe", "all", 0)
    other_seed = Run("fashion_cnn_1k", "fashion_edges", "linear_probe", "all", 1)
    other_model = Run("fashion_cnn_50k", "fashion_edges", "linear_probe", "all", 0)
    evaluate(pretrained, one_seed, other_model)
    with pytest.raises(UserError, match="no run is finished"):
        finished_runs(whole)
    evaluate(other_seed)
    assert finished_runs(whole) == [pretrained, one_seed, other_seed]
