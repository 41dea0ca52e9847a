"""Analyses describe themselves, and what they make is looked through before any job runs."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.grid.labels import shades_of
from rib.grid.paths import Paths
from rib.jobs import code_digest
from rib.report import described
from rib.report.described import analyses_of_page, described_analyses
from rib.schema.analysis import Analysis, Column, Figure, Table
from tiny.projects.grids import grid

TABLE = Table(title="T", question="why", note="N", columns=[Column("Model", "model")])
FIGURE = Figure(question="why", caption="How to read it.", inputs={"mri": "mri.csv"})
CATALOG = LIBRARY.parents[1] / "catalog"
PINK = "#cc79a7"
BLUE = "#56b4e9"


def described_of(one_grid, choice=()):
    """Analyses of a grid, as the rules ask for them."""
    return described_analyses(one_grid, Paths(one_grid), choice)


TABLES = "def tables(inputs): ...\n"
DRAW = "def draw_{name}(mri): ...\n"


@pytest.fixture
def describe(monkeypatch, tmp_path):
    """A function that gives what is described where the library has the given analyses.

    Each has functions for all that it makes, unless `functions` has the text of its files.
    """

    def described_of_folders(*, choice=(), functions=None, describing=None, **analyses):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, analysis in analyses.items():
            figures = analysis.figures if analysis else {}
            drawing = "".join(DRAW.format(name=figure) for figure in figures)
            files = {"tables.py": TABLES, "figure.py": drawing, "describe.py": ""}
            (root / name).mkdir(parents=True)
            for file, text in {**files, **(functions or {})}.items():
                (root / name / file).write_text(text)
        describe = describing or (lambda analysis: analysis)
        modules = {
            f"rib.analyses.{name}.describe": SimpleNamespace(
                describe=lambda *_, analysis=analysis: describe(analysis)
            )
            for name, analysis in analyses.items()
        }
        with monkeypatch.context() as context:
            context.setattr(described, "FOLDER", root)
            context.setattr(described.importlib, "import_module", modules.__getitem__)
            return described_of(grid(), choice)

    return described_of_folders


def test_an_analysis_has_the_name_of_its_file_and_may_have_nothing_to_show(describe):
    # given
    one = Analysis(makes=["one.csv", "one.md"], tables={"one": TABLE}, figures={"one": FIGURE})
    # then
    assert describe(one=one, nothing=None) == {"one": replace(one, folder="reports/emoji")}


@pytest.mark.parametrize(
    "analysis",
    [Analysis(makes=["same.csv", "b.csv"]), Analysis(figures={"same": FIGURE})],
    ids=["table", "figure"],
)
def test_two_analyses_that_make_the_same_file_are_refused(describe, analysis):
    ours = Analysis(makes=["same.csv"], figures={"same": FIGURE})
    with pytest.raises(UserError, match=r"theirs and ours both make same\.\w+"):
        describe(ours=ours, theirs=analysis)


INCOMPLETE = {
    "a table without description": (
        {"tables": {"mine": replace(TABLE, note=" ")}},
        "'mine' has no note",
    ),
    "a question that the page has not": (
        {"tables": {"mine": replace(TABLE, question="survivd")}},
        "'survivd' .*'survived'",
    ),
    "a form that there is not": (
        {"tables": {"mine": replace(TABLE, columns=[Column("Model", "model", form="percnt")])}},
        "'mine', model: .*'percnt'",
    ),
    "a figure without caption": (
        {"figures": {"mine": replace(FIGURE, caption="")}},
        "'mine' has no caption",
    ),
    "a figure with other inputs than its function": (
        {"figures": {"mine": replace(FIGURE, inputs={"ri": "ri.csv"})}},
        "draw_mine .*'(mri|ri)'",
    ),
}


@pytest.mark.parametrize(("changes", "named"), INCOMPLETE.values(), ids=list(INCOMPLETE))
def test_what_would_fail_after_the_trainings_is_refused_before_them(describe, changes, named):
    analysis = replace(Analysis(makes=["mine.csv"]), **changes)
    with pytest.raises(UserError, match=rf"^rib/analyses/mine/describe\.py.*{named}"):
        describe(mine=analysis)


def test_an_analysis_without_its_functions_is_refused(describe):
    analysis = Analysis(makes=["mine.csv"], figures={"mine": FIGURE})
    with pytest.raises(UserError, match=r"analyses/mine .*no function tables"):
        describe(mine=analysis, functions={"tables.py": ""})
    with pytest.raises(UserError, match="'mine'.*no function draw_mine"):
        describe(mine=analysis, functions={"figure.py": ""})


def test_a_description_that_lacks_something_names_its_file(describe):
    with pytest.raises(UserError, match=r"rib/analyses/mine/describe\.py: .*'caption'"):
        describe(mine=Analysis(), describing=lambda _: Figure(question="why", inputs={}))


def test_a_table_that_is_not_made_is_refused(describe):
    analysis = Analysis(makes=["other.csv"], tables={"wanted": TABLE})
    with pytest.raises(UserError, match=r"mine/describe\.py.*'wanted'.*wanted\.csv"):
        describe(mine=analysis)


def test_tables_of_metrics_are_made_by_another_job(describe):
    analysis = Analysis(tables={"wanted": TABLE}, of_metrics=True)
    assert describe(mine=analysis)["mine"].tables == {"wanted": TABLE}


ANALYSES = {
    "usual": Analysis(),
    "extra": Analysis(on_demand=True, makes=["extra.csv"], tables={"extra": TABLE}),
    "target_alone": Analysis(on_demand=True, makes=["x.csv"]),
}


@pytest.mark.parametrize(
    ("choice", "names"), [("all", ["extra", "usual"]), (["extra"], ["extra", "usual"])]
)
def test_an_analysis_on_demand_is_part_of_a_run_that_lists_it_else_it_has_its_own_folder(
    describe, choice, names
):
    paths = Paths(grid())
    assert list(analyses_of_page(describe(choice=choice, **ANALYSES), paths)) == names
    not_chosen = describe(**ANALYSES)
    assert list(analyses_of_page(not_chosen, paths)) == ["usual"]
    assert not_chosen["extra"].folder == "reports/emoji/extra"


@pytest.mark.parametrize("name", ["other", "usual", "target_alone"])
def test_an_analysis_that_is_unknown_or_not_on_demand_cannot_be_chosen(describe, name):
    with pytest.raises(UserError, match=f"config, analyses: unknown '{name}'; known are extra"):
        describe(choice=[name], **ANALYSES)


# Our analyses


@pytest.fixture(scope="module")
def ours():
    """Analyses of the default grid of the emoji family."""
    return described_of(grid())


# Grids that have all our analyses between them.
CHOICES = (
    {},
    {"train_subset": ["all", 5], "models": ["efficientnet_lite0"]},
    {"family": "imagenet"},
    {"family": "fashion", "models": ["fashion_cnn_1k", "fashion_cnn_1k_seed1"]},
    {"methods": ["ft", "soup_targets"]},
    {
        "family": "fashion",
        "protocol": "held_out",
        "method_settings": {"ft": {"lr": [0.1, 0.2]}},
        "methods": ["ft"],
        "select": "target",
    },
    {
        "family": "imagenet",
        "datasets": ["imagenet_val", "imagenet_v2", "imagenet_r"],
        "methods": ["ft"],
    },
    {"family": "fashion", "targets": ["fashion_train"], "reference": "none"},
)


@pytest.fixture(scope="module")
def all_ours():
    """What each grid of CHOICES has, as pairs of an analysis' name and what it describes."""
    described_analyses_of_grids = []
    for choices in CHOICES:
        described_analyses_of_grids.extend(described_of(grid(**choices)).items())
    return described_analyses_of_grids


def test_each_file_of_an_analysis_describes_it(all_ours):
    """In some grid; and each figure that one draws is declared, see test_readme_parts."""
    names = {name for name, _ in all_ours}
    folders = {file.parent.name for file in (LIBRARY / "analyses").glob("*/describe.py")}
    assert names == folders


def test_a_grid_without_a_common_method_has_tables_but_no_figures():
    analyses = described_of(
        grid(
            family="imagenet",
            datasets=["imagenet_val", "imagenet_v2", "imagenet_r"],
            models=["ViT-B-32.openai", "resnet18.tv_in1k"],
            methods=["flyp"],
        )
    )
    assert {"mri", "worst_classes"} <= analyses["robustness"].tables.keys()
    assert "cost" in analyses["cost"].tables
    assert [name for name in analyses if analyses[name].figures] == []


def test_the_page_links_to_files_that_an_analysis_makes(all_ours):
    links = 0
    for name, analysis in all_ours:
        for files in analysis.files.values():
            links += len(files)
            of_metrics = ["classes.csv"] if analysis.of_metrics else []
            assert {*files} <= {*analysis.makes, *of_metrics}, name
    assert links > 10


def test_a_grid_without_fine_tuned_runs_has_tables_but_no_figures():
    # given
    without_methods = grid(methods=[])
    # when
    analyses = described_of(without_methods)
    # then
    assert [name for name, analysis in analyses.items() if analysis.figures] == []
    assert {"robustness", "data_and_models", "summary"} <= analyses.keys()
    assert "cells" not in analyses, "it explains the matrix of RI"


def test_files_of_analyses_are_read_and_describe_themselves_without_pandas_and_plots():
    """Each call of Snakemake reads all of them."""
    source = (
        "import sys\n"
        "from rib.catalog.catalog import Catalog\n"
        "from rib.grid.grid import resolve_grid\n"
        "from rib.grid.paths import Paths\n"
        "from rib.schema.config import config_of\n"
        "from rib.report.described import described_analyses\n"
        "config = config_of({'family': 'emoji'}, 'config')\n"
        "grid = resolve_grid(config, Catalog([sys.argv[1]]))\n"
        "print(len(described_analyses(grid, Paths(grid), [])))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(CATALOG)],
        env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    number, modules = done.stdout.splitlines()
    assert int(number) > 20
    assert not {"torch", "pandas", "numpy", "matplotlib", "pyarrow"} & {*modules.split()}


def test_no_analysis_is_made_again_when_the_code_that_resolves_grids_changes():
    """What its files of tables and figures import is in its digest."""
    resolving = {
        f"config/{name}.py" for name in ("catalog", "config", "entries", "grid", "labels", "paths")
    }
    folder = LIBRARY / "analyses"
    for file in (*folder.glob("*/tables.py"), *folder.glob("*/figure.py")):
        closure = code_digest.closure(file)
        found = {path.relative_to(LIBRARY).as_posix() for path in closure}
        assert not found & resolving, file
        assert not any(name.endswith("/describe.py") for name in found), file


def brightness(shade):
    """The sum of red, green and blue of a colour such as #cc79a7, each from 0 to 255."""
    return sum(bytes.fromhex(shade.removeprefix("#")))


@pytest.mark.parametrize("names", [1, 2, 3, 6])
def test_methods_of_one_colour_have_different_shades_of_which_the_first_is_the_colour(names):
    """So many methods are pink, one is blue, and a last one is pink again."""
    # when
    shades = shades_of([*[PINK] * names, BLUE, PINK])
    # then
    *first_shades_of_pink, shade_of_blue, last_shade_of_pink = shades
    shades_of_pink = [*first_shades_of_pink, last_shade_of_pink]
    assert len(shades_of_pink) == names + 1
    assert len(set(shades)) == names + 2
    assert shades_of_pink[0] == PINK
    assert shade_of_blue == BLUE
    for lighter, darker in pairwise(shades_of_pink):
        assert brightness(lighter) > brightness(darker)
    assert brightness(last_shade_of_pink) > 0.3 * brightness(PINK)
