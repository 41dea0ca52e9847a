"""Registration of figures and analyses (workflow/rules/registry.py)."""

from itertools import pairwise
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.plugins import load_module

MODULE = load_module(Path(__file__).parents[2] / "workflow/rules/registry.py")
Registry = MODULE.Registry
shades_of = MODULE.shades_of
FOLDER = "lib/rib/analyses/mine"
DESCRIPTIONS = """
usual: {title: Usual, question: why, note: What it shows., columns: {Model: model}}
extra: {title: Extra, question: why, note: What it shows., columns: {Model: model}}
"""
DRAW = "def draw(table, more=None, *, labels: dict, size: str = 'all'): ...\n"
INPUTS = {"table": "a.csv"}
SETTINGS = {"labels": {}}
PINK = "#cc79a7"
BLUE = "#56b4e9"


@pytest.fixture
def folder(tmp_path):
    """The folder of an analysis, with the modules and captions of two figures, one and two."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(DRAW)
        (folder / f"{name}.rst").write_text("How to read it.")
    (folder / "tables.yaml").write_text(DESCRIPTIONS)
    return folder


@pytest.fixture
def registry(tmp_path, folder):
    """An empty registry, of a workflow whose config chooses all analyses."""
    return Registry(tmp_path, "all")


def register_figure(registry, name="one", *, question="why", inputs=INPUTS, settings=SETTINGS):
    """Register a figure of the analysis `mine`, with inputs and settings that `draw` takes."""
    registry.figure(name, analysis="mine", question=question, inputs=inputs, settings=settings)


@pytest.mark.parametrize(
    ("inputs", "settings"),
    [
        ({"table": "a.csv"}, {"labels": {}}),
        ({"table": "a.csv", "more": ["b.csv"]}, {"labels": {}, "size": "10"}),
    ],
)
def test_a_figure_is_registered_with_its_module_and_caption(registry, folder, inputs, settings):
    register_figure(registry, inputs=inputs, settings=settings)
    assert list(registry.figures) == ["one"]
    figure = registry.figures["one"]
    assert figure.inputs == inputs
    assert figure.settings == settings
    assert figure.module == folder / "one.py"
    assert figure.caption == folder / "one.rst"


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
    with pytest.raises(UserError, match=r"mine/one\.py"):
        register_figure(registry, inputs=inputs, settings=settings)
    assert registry.figures == {}


def register_figure_with_more(registry):
    """Register the figure one, with a caption of its own that is called `one_with_more`."""
    registry.figure(
        "one",
        analysis="mine",
        question="why",
        inputs=INPUTS,
        settings=SETTINGS,
        caption="one_with_more",
    )


def test_a_figure_that_shows_more_has_a_caption_that_says_so(registry, folder):
    caption = folder / "one_with_more.rst"
    caption.write_text("How to read it, and more.")
    register_figure_with_more(registry)
    assert registry.figures["one"].caption == caption


def test_a_figure_that_shows_more_is_refused_without_the_caption_that_says_so(registry):
    with pytest.raises(UserError, match="'one'.*one_with_more.rst"):
        register_figure_with_more(registry)
    assert registry.figures == {}


@pytest.mark.parametrize("missing", [f"{FOLDER}/one.py", f"{FOLDER}/one.rst"])
def test_a_figure_without_a_module_or_a_caption_is_refused(registry, tmp_path, missing):
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"'one'.*{missing}"):
        register_figure(registry)


def test_a_question_that_the_page_does_not_ask_is_refused(registry):
    with pytest.raises(UserError, match="'one'.*'when'.*survived"):
        register_figure(registry, question="when")


def test_an_analysis_shows_figures_that_are_registered(registry):
    register_figure(registry, "one")
    with pytest.raises(UserError, match="'mine'.*'two'"):
        registry.analysis("mine", tables={}, figures=["one", "two"])


def register_two_analyses(registry):
    """Register a figure of no analysis and, of two analyses, tables and a file each.

    The second analysis, `extra`, is optional, and has a figure, too.
    """
    register_figure(registry, "two")
    register_figure(registry, "one")
    registry.analysis(
        "usual",
        folder="mine",
        tables={"usual": "usual.csv"},
        files={"rows": ["rows.csv"]},
    )
    registry.analysis(
        "extra",
        folder="mine",
        tables={"extra": "extra.csv"},
        figures=["one"],
        files={"maps": ["maps.csv"]},
        optional=True,
    )


@pytest.mark.parametrize(("chosen", "extra"), [("all", True), (["extra"], True), ([], False)])
def test_an_optional_analysis_is_part_of_a_run_that_names_it(tmp_path, folder, chosen, extra):
    # given
    registry = Registry(tmp_path, chosen)
    # when
    register_two_analyses(registry)
    # then
    is_optional = [analysis.optional for analysis in registry.chosen()]
    if extra:
        assert registry.chosen_figures() == ["two", "one"]
        assert registry.chosen_tables() == {"usual": "usual.csv", "extra": "extra.csv"}
        assert registry.chosen_files() == {"rows": ["rows.csv"], "maps": ["maps.csv"]}
        assert is_optional == [False, True]
    else:
        assert registry.chosen_figures() == ["two"]
        assert registry.chosen_tables() == {"usual": "usual.csv"}
        assert registry.chosen_files() == {"rows": ["rows.csv"]}
        assert is_optional == [False]


@pytest.mark.parametrize("name", ["other", "usual"])
def test_an_analysis_that_is_unknown_or_not_optional_cannot_be_chosen(tmp_path, folder, name):
    registry = Registry(tmp_path, [name])
    register_two_analyses(registry)
    with pytest.raises(UserError, match=f"config, analyses: .*'{name}'.*extra"):
        registry.chosen()


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


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ("other: {}", "the table 'usual' has no columns"),
        (DESCRIPTIONS.replace("note: What it shows., ", ""), "the table 'usual' has no note"),
        (DESCRIPTIONS.replace("question: why", "question: when"), "the question 'when'.*survived"),
    ],
)
def test_a_table_that_the_page_cannot_show_is_refused(registry, folder, described, sentence):
    (folder / "tables.yaml").write_text(described)
    with pytest.raises(UserError, match=f"mine/tables.yaml.*{sentence}"):
        registry.analysis("mine", tables={"usual": "usual.csv"})


def test_an_analysis_with_tables_describes_them(registry, folder):
    (folder / "tables.yaml").unlink()
    with pytest.raises(UserError, match="'mine' has tables, but .*mine/tables.yaml does not exist"):
        registry.analysis("mine", tables={"usual": "usual.csv"})


def test_descriptions_of_the_run_are_listed_once(registry, folder):
    register_two_analyses(registry)
    assert registry.chosen_descriptions() == [folder / "tables.yaml"]


def test_figures_of_tables_of_images_and_of_optional_analyses_have_rules_of_their_own(registry):
    register_figure(registry, "one")
    register_figure(registry, "two", inputs={"table": "a.csv", "more": ["red/manifest.json"]})
    assert registry.figures_of_rules() == {"plot_figures": ["one"], "plot_two": ["two"]}
    registry.analysis("extra", tables={}, figures=["one"], optional=True)
    assert registry.figures_of_rules() == {"plot_extra": ["one"], "plot_two": ["two"]}
