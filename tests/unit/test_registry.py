"""Registration of figures and analyses (workflow/rules/registry.py)."""

from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.plugins import load_module

MODULE = load_module(Path(__file__).parents[2] / "workflow/rules/registry.py")
Registry, shades_of = MODULE.Registry, MODULE.shades_of
FOLDER = "lib/rib/analyses/mine"
DESCRIPTIONS = """
usual: {title: Usual, question: why, note: What it shows., columns: {Model: model}}
extra: {title: Extra, question: why, note: What it shows., columns: {Model: model}}
"""
DRAW = "def draw(table, more=None, *, labels: dict, size: str = 'all'): ...\n"


@pytest.fixture
def registry(tmp_path):
    """A registry of a workflow that has the figures one and two, for a choice of analyses."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(DRAW)
        (folder / f"{name}.rst").write_text("How to read it.")
    (folder / "tables.yaml").write_text(DESCRIPTIONS)
    return lambda analyses="all": Registry(tmp_path, analyses)


@pytest.mark.parametrize(
    ("inputs", "settings"),
    [
        ({"table": "a.csv"}, {"labels": {}}),
        ({"table": "a.csv", "more": ["b.csv"]}, {"labels": {}, "size": "10"}),
    ],
)
def test_a_figure_is_registered_with_its_module_and_caption(registry, tmp_path, inputs, settings):
    made = registry()
    made.figure("one", analysis="mine", question="why", inputs=inputs, settings=settings)
    (figure,) = made.figures.values()
    assert (figure.inputs, figure.settings) == (inputs, settings)
    assert figure.module == tmp_path / FOLDER / "one.py"
    assert figure.caption == tmp_path / FOLDER / "one.rst"


@pytest.mark.parametrize(
    ("inputs", "settings"),
    [
        ({}, {"labels": {}}),
        ({"table": "a.csv", "other": "b.csv"}, {"labels": {}}),
        ({"table": "a.csv", "labels": "b.csv"}, {"labels": {}}),
        ({"table": "a.csv"}, {}),
        ({"table": "a.csv"}, {"size": "all"}),
        ({"table": "a.csv"}, {"labels": {}, "sizes": ["all"]}),
        ({"table": "a.csv"}, {"labels": {}, "more": None}),
    ],
)
def test_inputs_or_settings_that_draw_does_not_take_are_refused(registry, inputs, settings):
    made = registry()
    with pytest.raises(UserError, match=r"mine/one\.py"):
        made.figure("one", analysis="mine", question="why", inputs=inputs, settings=settings)
    assert made.figures == {}


def test_a_figure_that_shows_more_has_a_caption_that_says_so(registry, tmp_path):
    other = tmp_path / FOLDER / "one_with_more.rst"
    given = {"question": "why", "inputs": {"table": "a.csv"}, "settings": {"labels": {}}}
    with pytest.raises(UserError, match="'one'.*one_with_more.rst"):
        registry().figure("one", analysis="mine", **given, caption="one_with_more")
    other.write_text("How to read it, and more.")
    made = registry()
    made.figure("one", analysis="mine", **given, caption="one_with_more")
    assert made.figures["one"].caption == other


@pytest.mark.parametrize("missing", [f"{FOLDER}/one.py", f"{FOLDER}/one.rst"])
def test_a_figure_without_a_module_or_a_caption_is_refused(registry, tmp_path, missing):
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"'one'.*{missing}"):
        registry().figure(
            "one",
            analysis="mine",
            question="why",
            inputs={"table": "a.csv"},
            settings={"labels": {}},
        )


def test_a_question_that_the_page_does_not_ask_is_refused(registry):
    with pytest.raises(UserError, match="'one'.*'when'.*survived"):
        registry().figure(
            "one",
            analysis="mine",
            question="when",
            inputs={"table": "a.csv"},
            settings={"labels": {}},
        )


def test_an_analysis_shows_figures_that_are_registered(registry):
    made = registry()
    made.figure(
        "one", analysis="mine", question="why", inputs={"table": "a.csv"}, settings={"labels": {}}
    )
    with pytest.raises(UserError, match="'mine'.*'two'"):
        made.analysis("mine", tables={}, figures=["one", "two"])


def with_analyses(made):
    """A figure of no analysis and, of two analyses, a figure, a table and a file each.

    The second analysis is optional.
    """
    for name in ("two", "one"):
        made.figure(
            name,
            analysis="mine",
            question="why",
            inputs={"table": "a.csv"},
            settings={"labels": {}},
        )
    made.analysis(
        "usual", folder="mine", tables={"usual": "usual.csv"}, files={"rows": ["rows.csv"]}
    )
    made.analysis(
        "extra",
        folder="mine",
        tables={"extra": "extra.csv"},
        figures=["one"],
        files={"maps": ["maps.csv"]},
        optional=True,
    )
    return made


@pytest.mark.parametrize(("chosen", "extra"), [("all", True), (["extra"], True), ([], False)])
def test_an_optional_analysis_is_part_of_a_run_that_names_it(registry, chosen, extra):
    made = with_analyses(registry(chosen))
    assert made.chosen_figures() == (["two", "one"] if extra else ["two"])
    assert made.chosen_tables() == {
        "usual": "usual.csv",
        **({"extra": "extra.csv"} if extra else {}),
    }
    assert made.chosen_files() == {
        "rows": ["rows.csv"],
        **({"maps": ["maps.csv"]} if extra else {}),
    }
    assert [entry.optional for entry in made.chosen()] == [False, True][: 1 + extra]


@pytest.mark.parametrize("name", ["other", "usual"])
def test_an_analysis_that_is_unknown_or_not_optional_cannot_be_chosen(registry, name):
    with pytest.raises(UserError, match=f"config, analyses: .*'{name}'.*extra"):
        with_analyses(registry([name])).chosen()


@pytest.mark.parametrize("names", [1, 2, 3, 6])
def test_methods_of_one_colour_have_different_shades_of_which_the_first_is_the_colour(names):
    given = ["#cc79a7"] * names + ["#56b4e9", "#cc79a7"]
    shades = shades_of(given)
    assert len(set(shades)) == len(shades) and (shades[0], shades[names]) == ("#cc79a7", "#56b4e9")
    for alike in (shades[:names] + shades[-1:], shades[names : names + 1]):
        light = [sum(bytes.fromhex(shade[1:])) for shade in alike]
        assert light == sorted(light, reverse=True) and light[-1] > 0.3 * light[0]


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ("other: {}", "the table 'usual' has no columns"),
        (DESCRIPTIONS.replace("note: What it shows., ", ""), "the table 'usual' has no note"),
        (DESCRIPTIONS.replace("question: why", "question: when"), "the question 'when'.*survived"),
    ],
)
def test_a_table_that_the_page_cannot_show_is_refused(registry, tmp_path, described, sentence):
    (tmp_path / FOLDER / "tables.yaml").write_text(described)
    with pytest.raises(UserError, match=f"mine/tables.yaml.*{sentence}"):
        registry().analysis("mine", tables={"usual": "usual.csv"})


def test_an_analysis_with_tables_describes_them(registry, tmp_path):
    (tmp_path / FOLDER / "tables.yaml").unlink()
    with pytest.raises(UserError, match="'mine' has tables, but .*mine/tables.yaml does not exist"):
        registry().analysis("mine", tables={"usual": "usual.csv"})


def test_descriptions_of_the_run_are_listed_once(registry, tmp_path):
    assert with_analyses(registry("all")).chosen_descriptions() == [
        tmp_path / FOLDER / "tables.yaml"
    ]
