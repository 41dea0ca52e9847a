"""Parts of README.md and docs/ that are made (`make docs`).

Whether they are fresh is asked in tests/integration/test_readme.py.
"""

import re
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import Field, create_model

from rib.analyses.radar import describe as radar
from rib.catalog.catalog import Catalog
from rib.report import readme
from rib.schema.fields import Described

ROOT = Path(__file__).parents[2]
GRAPH = """flowchart TB
	id0[all]
	id1[evaluate]
	id2[write_page]
	id3[metrics]
	id1 --> id3
	id1 --> id2
	id3 --> id2
	id2 --> id0
"""


@pytest.fixture(scope="module")
def catalog():
    return Catalog([ROOT / "workflow/catalog"])


COSTS = """\
model,method,finetune
a,ft,10
b,ft,30
a,replay,20
b,replay,50
a,lora,10
b,lora,22
a,soup_seeds,30
b,soup_seeds,90
a,dare,30
b,dare,90
a,l2_sp,10
b,l2_sp,30
"""
COMPARISONS = """\
model,method,other,difference,p_holm
a,ft,replay,-4,0.01
b,ft,replay,-3,0.06
a,ft,l2_sp,-1,0.01
b,ft,l2_sp,1,0.04
a,dare,ft,-2,0.01
b,dare,ft,-1,0.04
a,ft,lora,1,0.5
b,ft,lora,1,1
a,dare,lora,5,0.01
b,dare,lora,5,0.01
"""


@pytest.fixture
def compared(tmp_path_factory, monkeypatch):
    """Tables of a comparison of six methods on the networks a and b.

    A mean over networks has an interval of +/- 2, a mean over objects one of +/- 0.5.
    """
    folder = tmp_path_factory.mktemp("compared")
    monkeypatch.setattr(readme, "COMPARED", folder)
    mri_of_methods = {
        "ft": -2,
        "replay": 1.5,
        "lora": -3,
        "soup_seeds": 1,
        "dare": -3.5,
        "l2_sp": -2.5,
    }
    methods_but_ft = [method for method in mri_of_methods if method != "ft"]
    mean_lines = ["method,measure,mean,over,ci_low,ci_high"]
    difference_lines = ["method,measure,mean,over,ci_low,ci_high"]
    for over, half_width in (("networks", 2), ("objects", 0.5)):
        for method, mri in mri_of_methods.items():
            for measure, mean in (("mri", mri), ("in_distribution", -1), ("on_target", 99)):
                ends = f"{mean - half_width},{mean + half_width}"
                mean_lines.append(f"{method},{measure},{mean},{over},{ends}")
        for method in methods_but_ft:
            more_than_ft = mri_of_methods[method] - mri_of_methods["ft"]
            ends = f"{more_than_ft - half_width},{more_than_ft + half_width}"
            difference_lines.append(f"{method},mri,{more_than_ft},{over},{ends}")
            difference_lines.append(f"{method},in_distribution,0,{over},0,0")
    (folder / "network_groups.csv").write_text("\n".join(mean_lines))
    (folder / "method_differences.csv").write_text("\n".join(difference_lines))
    (folder / "cost.csv").write_text(COSTS)
    (folder / "comparisons.csv").write_text(COMPARISONS)


ACCURACY_BEFORE = {"fashion": 90, "fashion_edges": 20, "fashion_drawing": 30, "fashion_tilted": 40}
# By fine-tuning on fashion_edges; a second network has 1 more.
CHANGE = {"fashion": -50, "fashion_edges": 70, "fashion_drawing": 10, "fashion_tilted": 2}


@pytest.fixture
def seeds(tmp_path, monkeypatch):
    """Means over three networks of each of two kinds, with three methods."""
    monkeypatch.setattr(readme, "FASHION_SEEDS", tmp_path)
    columns = ("ood_before", "ood_after", "mri", "in_distribution")
    means = {
        ("ft", "many"): (26, 46, 20, -10),
        ("ft", "few"): (70, 66.5, -3.5, -5),
        ("linear_probe", "many"): (26, 27, 1, -2),
        ("linear_probe", "few"): (70, 69, -1, 0),
        ("wise_ft-alpha0.5", "many"): (26, 38, 12, -1),
        ("wise_ft-alpha0.5", "few"): (70, 72, 2, -1),
    }
    lines = ["method,measure,group,networks,mean,over,ci_low,ci_high"]
    for (method, kind), values in means.items():
        for measure, mean in {**dict(zip(columns, values, strict=True)), "on_target": 99}.items():
            for over, half_width in (("networks", 2), ("objects", 0.5)):
                ends = f"{mean - half_width},{mean + half_width}"
                lines.append(f"{method},{measure},{kind},3,{mean},{over},{ends}")
    (tmp_path / "network_groups.csv").write_text("\n".join(lines))
    lines = ["group,model,method,measure,value"]
    for (method, kind), values in means.items():
        mri = values[columns.index("mri")]
        for number in (1, 2):
            more_than_ft = 0 if method == "ft" else number
            lines.append(f"{kind},{kind[0]}{number},{method},mri,{mri + more_than_ft}")
    (tmp_path / "networks.csv").write_text("\n".join(lines))
    lines = ["model,method,target,seed,dataset,role,accuracy"]
    for model in ("m1", "m2", "f1", "f2"):
        for dataset, accuracy in ACCURACY_BEFORE.items():
            role = "in_distribution" if dataset == "fashion" else "ood"
            lines.append(f"{model},pretrained,none,0,{dataset},{role},{accuracy}")
            for method in readme.SHOWN_METHODS:
                more_of_second = 1 if model.endswith("2") else 0
                after = accuracy + CHANGE[dataset] + more_of_second
                lines.append(f"{model},{method},fashion_edges,0,{dataset},{role},{after}")
    (tmp_path / "accuracy.csv").write_text("\n".join(lines))


def test_the_comparison_has_the_best_first(compared):
    in_distribution = "-1.0 | 99.0"
    assert readme.comparison().splitlines()[2:] == [
        f"| `replay` | +3.5 | 1 above | +1.5 | {in_distribution} | 1.8 |",
        f"| `soup_seeds` | +3.0 | no test | +1.0 | {in_distribution} | 3.0 |",
        f"| `ft` |  |  | -2.0 | {in_distribution} | 1.0 |",
        f"| `l2_sp` | -0.5 | 1 above, 1 below | -2.5 | {in_distribution} | 1.0 |",
        f"| `lora` | -1.0 | none | -3.0 | {in_distribution} | 0.8 |",
        f"| `dare` | -1.5 | 2 below | -3.5 | {in_distribution} | 3.0 |",
    ]


def test_kinds_of_networks_have_what_each_method_changes(seeds):
    half_way = "`wise_ft-alpha0.5`"
    # of linear probing two networks have 1 and 2 points more than their mean in the other table
    more_than_ft = {
        mean: f"{mean:+.1f} [{mean - 6.4:+.1f}, {mean + 6.4:+.1f}]" for mean in (-17.5, -6.5, 4, 7)
    }
    assert readme.fashion_kinds().splitlines()[2:] == [
        "| many | `ft` | 26.0, 46.0 | +20.0 [+18.0, +22.0] |  | -10.0 [-12.0, -8.0] | 99.0 |",
        f"| many | `linear_probe` | 26.0, 27.0 | +1.0 [-1.0, +3.0] | {more_than_ft[-17.5]} "
        "| -2.0 [-4.0, +0.0] | 99.0 |",
        f"| many | {half_way} | 26.0, 38.0 | +12.0 [+10.0, +14.0] | {more_than_ft[-6.5]} "
        "| -1.0 [-3.0, +1.0] | 99.0 |",
        "| few | `ft` | 70.0, 66.5 | -3.5 [-5.5, -1.5] |  | -5.0 [-7.0, -3.0] | 99.0 |",
        f"| few | `linear_probe` | 70.0, 69.0 | -1.0 [-3.0, +1.0] | {more_than_ft[4]} "
        "| +0.0 [-2.0, +2.0] | 99.0 |",
        f"| few | {half_way} | 70.0, 72.0 | +2.0 [+0.0, +4.0] | {more_than_ft[7]} "
        "| -1.0 [-3.0, +1.0] | 99.0 |",
    ]


def test_sets_like_the_augmentation_are_left_out_of_mri(seeds):
    half_width = 12.706 * 0.5  # t interval of two networks that differ by 1
    mri_of_all_sets = 6.5
    mri_of_unlike_sets = 10.5
    cells = [
        f"{mri:+.1f} [{mri - half_width:+.1f}, {mri + half_width:+.1f}]"
        for mri in (mri_of_all_sets, mri_of_unlike_sets)
    ]
    _header, _rule, first_row, *other_rows = readme.fashion_unlike_augmentation().splitlines()
    assert first_row == f"| many | `ft` | {' | '.join(cells)} |"
    assert len(other_rows) == 3


def test_each_kept_run_has_a_line_with_what_its_folder_records(tmp_path, monkeypatch):
    # given one with all facts, one with few, and the folder of a run that is not kept
    monkeypatch.setattr(readme, "REPORTS", tmp_path)
    facts = "| | |\n|---|---|\n| Command | `snakemake` |\n| Kept in commit | 0a1b, 2027-01-02 |\n"
    pages = {
        "on_a_card": f"# Some run\n\n{facts}| Machine | one GPU |\n",
        "few_facts": "# Another\n\n| Machine | |\n",
    }
    for name, text in pages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(text)
    (tmp_path / "fashion/tables").mkdir(parents=True)
    # then
    unknown = readme.NOT_RECORDED
    assert readme.kept_runs().splitlines()[2:] == [
        f"| [few_facts](few_facts/README.md) | Another | {unknown} | {unknown} | {unknown} |",
        "| [on_a_card](on_a_card/README.md) | Some run | one GPU | 0a1b | 2027-01-02 |",
    ]


def test_every_key_of_config_has_a_line():
    keys = yaml.safe_load((ROOT / "config.yaml").read_text())
    table = readme.config_table()
    for key, value in keys.items():
        names = [key]
        if isinstance(value, dict) and value:
            names = [f"{key}.{key_of_section}" for key_of_section in value]
        for name in names:
            assert f"\n| `{name}` | " in table


def test_types_and_defaults_are_shown_as_in_yaml(monkeypatch):
    keys = {
        "a": (bool, True, "on | off"),
        "b": (Literal["all", "none"] | int | float, "all", "what"),
        "c": (list[str] | dict[str, int], ["x"], "which"),
        "d": (Literal["auto"] | str, "", "how"),
    }
    fields = {
        key: (kind, Field(default, description=text)) for key, (kind, default, text) in keys.items()
    }
    first = fields.pop("a")
    section = create_model("More", __base__=Described, **fields)
    config = create_model("Config", a=first, more=(section, Field(default_factory=section)))
    monkeypatch.setattr(readme, "Config", config)
    assert readme.config_table().splitlines() == [
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `a` | true or false | `true` | on \\| off |",
        "| `more.b` | `all`, `none` or number | `all` | what |",
        '| `more.c` | list or mapping | `["x"]` | which |',
        '| `more.d` | `auto` or text | `""` | how |',
    ]


def test_every_figure_has_a_line_with_its_caption(catalog):
    # given
    drawn = []
    for file in (ROOT / "workflow/lib/rib/analyses").rglob("*.py"):
        drawn += re.findall(r"^def draw_(\w+)\(", file.read_text(), re.MULTILINE)
    # when
    lines = readme.figure_list(catalog).splitlines()
    # then
    names = [re.match(r"- `(\w+)`: \S", line)[1] for line in lines]
    assert names == sorted(names)
    assert {*drawn} - {*names} == {"panels"}  # which two figures share
    assert {*names} <= {*drawn}
    (line_of_radar,) = [line for line in lines if line.startswith("- `radar`: ")]
    assert line_of_radar.removeprefix("- `radar`: ") == " ".join(radar.CAPTION.split())
    assert "``" not in "".join(lines)


def test_methods_say_what_they_need(catalog):
    needs = {
        line.split(" | ")[0]: line.split(" | ")[2]
        for line in readme.method_table(catalog).splitlines()
    }
    assert len(needs) == len(catalog.methods) + 2
    assert (
        needs["| `greedy_soup`"] == "`ft`, `ewc`, `lwf`, `held_out`"
        and needs["| `lp_ft`"] == "`linear_probe`"
    )
    assert (
        needs["| `soup_seeds`"] == "`ft`, several seeds"
        and needs["| `soup_targets`"] == "`ft`, several targets"
    )
    assert needs["| `greedy_soup_sweep`"] == "`ft`, a sweep, `held_out`"
    assert needs["| `replay`"] == "a reference dataset"
    assert needs["| `flyp`"] == "a model of images and texts"
    assert needs["| `lora_released`"] == "a ViT" and not needs["| `ft`"]


def test_recipes_say_what_differs_from_the_defaults(catalog):
    lines = {line.split(" | ")[0]: line for line in readme.recipe_table(catalog).splitlines()}
    assert len(lines) == len(catalog.recipes) + 2
    assert "weight_decay 0.1" in lines["| `adamw`"] and "weight_decay" not in lines["| `paper`"]


def test_the_graph_leaves_out_targets_and_what_can_be_inferred():
    lines = readme.graph(GRAPH).splitlines()
    assert lines == [
        "```mermaid",
        "flowchart LR",
        "    evaluate --> metrics",
        "    metrics --> write_page",
        "```",
    ]
    with pytest.raises(AssertionError):
        readme.graph("")


def pages(folder, *names):
    """Two pages with places for parts: the first has the first one, the second the others."""
    first, *others = [
        f"before\n<!-- made by make docs: {name} -->\nstale\n<!-- end -->\nafter {name}\n"
        for name in names
    ]
    for number, text in enumerate((first, "\n".join(others))):
        (folder / f"{number}.md").write_text(text)
    return sorted(folder.glob("*.md"))


PARTS = (
    "graph",
    "config",
    "figures",
    "methods",
    "recipes",
    "comparison",
    "fashion_kinds",
    "fashion_unlike_augmentation",
    "paper",
    "kept_runs",
)


def test_each_part_comes_to_its_place(tmp_path, catalog, compared, seeds, monkeypatch):
    # given two pages, of which the second has all parts but the graph
    monkeypatch.chdir(ROOT)
    first, second = pages(tmp_path, *PARTS)
    # when
    readme.renew([first, second], GRAPH)
    # then
    assert first.read_text() == (
        f"before\n<!-- made by make docs: graph -->\n"
        f"{readme.graph(GRAPH)}\n<!-- end -->\nafter graph\n"
    )
    text = second.read_text()
    for name, part in (("config", readme.config_table()), ("figures", readme.figure_list(catalog))):
        assert f"<!-- made by make docs: {name} -->\n{part}\n<!-- end -->\nafter {name}\n" in text
    assert "stale" not in text
    assert text.count("made by") == len(PARTS) - 1
    # when it is done again, then nothing changes
    readme.renew([first, second], GRAPH)
    assert second.read_text() == text


@pytest.mark.parametrize(
    "last_parts",
    [(), ("paper", "more"), ("paper", "paper")],
    ids=["missing", "unknown", "twice"],
)
def test_a_part_has_one_place(tmp_path, compared, seeds, monkeypatch, last_parts):
    # given places for all parts but one, and for the last ones
    monkeypatch.chdir(ROOT)
    parts_but_paper = [name for name in PARTS if name != "paper"]
    pages_of_parts = pages(tmp_path, *parts_but_paper, *last_parts)
    # when
    with pytest.raises(AssertionError, match="the pages have places for"):
        readme.renew(pages_of_parts, GRAPH)
    # then nothing is written
    for page in pages_of_parts:
        assert "stale" in page.read_text()
