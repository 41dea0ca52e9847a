"""Parts of README.md and docs/ that are made (`make docs`).

Whether they are fresh is asked in tests/integration/test_readme.py.
"""

from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from rib.config.catalog import Catalog
from rib.reporting import readme

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


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Tables of a run with three sizes."""
    monkeypatch.setattr(readme, "EXAMPLE", tmp_path)
    monkeypatch.setattr(readme, "COMPARED", tmp_path)
    lines = ["ft,1.04,0.5,2,99.9", "wise_ft-alpha0.5,3,2,4,50", "lwf,-1,-2.26,0,100"]
    lines = [f"efficientnet_lite0,all,protocol paper,{line}" for line in lines]
    head = "model,size,conditions,method,mri,ci_low,ci_high,fit"
    (tmp_path / "mri.csv").write_text("\n".join([head, *lines]))
    (tmp_path / "ranking.csv").write_text("method,size,letters\nft,all,ab\nlwf,all,b\n")
    runs = [("all", -1.0), ("all", 2.04), ("all", 1.0), ("0.5", 30.0), ("10", -40.0)]
    lines = [
        f"efficientnet_lite0,ft,noto,{size},{seed},{ri},-3,3"
        for seed, (size, ri) in enumerate(runs)
    ]
    (tmp_path / "ri.csv").write_text(
        "\n".join(["model,method,target,size,seed,ri,ci_low,ci_high", *lines])
    )
    (tmp_path / "accuracy.csv").write_text("dataset,n\nnoto,200\ntwemoji,97\nnoto,200\n")


@pytest.fixture
def fashion_tables(tmp_path_factory, monkeypatch):
    """Tables of a comparison of four methods, of which one is not finished and one not ranked."""
    folder = tmp_path_factory.mktemp("fashion_methods")
    tables = {
        "mri": """method,mri,ci_low,ci_high,on_target,unfinished
            ft,10,9,11,100,0
            lwf,-2.5,-3,-2,61.25,0
            spd,3,2,4,80,1
            soup_seeds,12,11,13,99,0""",
        "ranking": """model,method,reference,difference,diff_low,diff_high
            fashion_cnn_50k,ft,ft,0,,
            fashion_cnn_50k,lwf,ft,-12.5,-14,-11""",
        "in_distribution": """method,change,ci_low,ci_high
            ft,-20,-22,-18
            lwf,-1,-2,0
            spd,-2,-3,-1
            soup_seeds,-15,-16,-14""",
        "cost": """method,seconds
            ft,40
            lwf,44
            spd,40
            soup_seeds,124""",
    }
    for name, text in tables.items():
        lines = [line.strip() for line in text.splitlines()]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    monkeypatch.setattr(readme, "FASHION_METHODS", folder)


def test_the_comparison_has_the_best_first(example):
    assert readme.comparison().splitlines()[2:] == [
        "| `wise_ft-alpha0.5` | +3.0 [+2.0, +4.0] | 50.0 | not ranked |",
        "| `ft` | +1.0 [+0.5, +2.0] | 99.9 | ab |",
        "| `lwf` | -1.0 [-2.3, +0.0] | 100.0 | b |",
    ]


def test_methods_on_fashion_have_their_difference_from_full_fine_tuning_first(fashion_tables):
    assert readme.fashion_methods().splitlines()[2:] == [
        "| `soup_seeds` | not ranked | +12.0 [+11.0, +13.0] | -15.0 [-16.0, -14.0] | 99.0 | 3.1 |",
        "| `ft` | reference | +10.0 [+9.0, +11.0] | -20.0 [-22.0, -18.0] | 100.0 | 1.0 |",
        "| `spd` | unfinished | +3.0 [+2.0, +4.0] | -2.0 [-3.0, -1.0] | 80.0 | 1.0 |",
        "| `lwf` | -12.5 [-14.0, -11.0] | -2.5 [-3.0, -2.0] | -1.0 [-2.0, +0.0] | 61.3 | 1.1 |",
    ]


def test_networks_have_the_differences_of_methods_from_full_fine_tuning(
    catalog, tmp_path, monkeypatch
):
    monkeypatch.setattr(readme, "FASHION_SEEDS", tmp_path)
    (tmp_path / "ranking.csv").write_text(
        "model,method,reference,difference,diff_low,diff_high\n"
        "fashion_vit_50k,ft,ft,0,,\n"
        "fashion_vit_50k,lwf,ft,-12.5,-14,-11\n"
        "fashion_cnn_1k,lwf,ft,1,0.5,2\n"
        "fashion_cnn_1k,ewc,ft,2.25,1,3\n"
    )
    assert readme.fashion_networks(catalog).splitlines() == [
        "| network | `ewc` | `lwf` |",
        "| --- | --- | --- |",
        "| CNN on 1,000 | +2.3 [+1.0, +3.0] | +1.0 [+0.5, +2.0] |",
        "| ViT on 50,000 | not ranked | -12.5 [-14.0, -11.0] |",
    ]


def test_methods_that_were_run_on_further_networks_are_in_the_order_of_the_comparison(
    catalog, tmp_path, monkeypatch
):
    # given a comparison on one network, and a run of two of its methods on another one
    header = "model,method,reference,difference,diff_low,diff_high\n"
    comparison = tmp_path / "comparison"
    replication = tmp_path / "replication"
    for folder in (comparison, replication):
        folder.mkdir()
    (comparison / "ranking.csv").write_text(
        f"{header}"
        "fashion_cnn_50k,replay,ft,3,2,4\n"
        "fashion_cnn_50k,ldifs,ft,2,1,3\n"
        "fashion_cnn_50k,ewc,ft,1,0.5,2\n"
        "fashion_cnn_50k,ft,ft,0,,\n"
    )
    (replication / "ranking.csv").write_text(
        f"{header}"
        "fashion_cnn_50k_seed1,ewc,ft,1.5,1,2\n"
        "fashion_cnn_50k_seed1,ft,ft,0,,\n"
        "fashion_cnn_50k_seed1,replay,ft,-2,-3,-1\n"
    )
    monkeypatch.setattr(readme, "FASHION_METHODS", comparison)
    monkeypatch.setattr(readme, "FASHION_REPLICATION", replication)
    # when
    table = readme.fashion_replication(catalog)
    # then
    assert table.splitlines() == [
        "| method | CNN on 50,000 | CNN on 50,000, seed 1 |",
        "| --- | --- | --- |",
        "| `replay` | +3.0 [+2.0, +4.0] | -2.0 [-3.0, -1.0] |",
        "| `ewc` | +1.0 [+0.5, +2.0] | +1.5 [+1.0, +2.0] |",
    ]


def test_every_key_of_config_has_a_line():
    keys = yaml.safe_load((ROOT / "config.yaml").read_text())
    table = readme.config_table()
    for key, value in keys.items():
        names = [key]
        if isinstance(value, dict) and value:
            names = [f"{key}.{key_of_section}" for key_of_section in value]
        for name in names:
            assert f"\n| `{name}` | `" in table


def test_defaults_are_shown_as_in_yaml(monkeypatch):
    leaves = {
        "a": (True, "on | off"),
        "b": ("all", "what"),
        "c": (["x"], "which"),
        "d": (0.5, "how much"),
    }
    parts = {
        key: {"default": default, "description": text} for key, (default, text) in leaves.items()
    }
    schema = {"properties": {"a": parts.pop("a"), "more": {"properties": parts}}}
    monkeypatch.setattr(readme, "load_schema", {"config": schema}.get)
    assert readme.config_table().splitlines() == [
        "| key | default | meaning |",
        "| --- | --- | --- |",
        "| `a` | `true` | on \\| off |",
        "| `more.b` | `all` | what |",
        '| `more.c` | `["x"]` | which |',
        "| `more.d` | `0.5` | how much |",
    ]


def test_captions_become_lines_of_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ANALYSES", tmp_path)
    captions = {"two/a": "One.\n", "one/b": "Of\nfive ``targets``.\n", "one/b_with_more": "More.\n"}
    for name, caption in captions.items():
        path = tmp_path / f"{name}.rst"
        path.parent.mkdir(exist_ok=True)
        path.write_text(caption)
    for figure in ("two/a", "one/b"):
        (tmp_path / f"{figure}.py").write_text("")
    assert readme.figure_list() == "- `a`: One.\n- `b`: Of five `targets`."


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
    lines = {
        line.split(" | ")[0]: line.split(" | ")
        for line in readme.recipe_table(catalog).splitlines()
    }
    assert len(lines) == len(catalog.recipes) + 2
    assert lines["| `paper`"][1:3] == ["SGD", "optimizer sgd, warmup_steps 196"]
    assert lines["| `adamw`"][2] == "optimizer adamw, weight_decay 0.1, clip_norm 1.0"


def test_the_headline_is_of_the_largest_size(example, catalog):
    answer, numbers = readme.headline(catalog).split("\n\n- ")
    minus = "\N{MINUS SIGN}"
    assert answer == (
        "**Full fine-tuning changed mean accuracy on the out-of-distribution datasets other than "
        "the target by +1.0 [+0.5, +2.0] percentage points.**"
    )
    statements, numbers = numbers.split("\n\n")
    assert statements.splitlines() == [
        "Averaging: Compared with full fine-tuning, averages of its weights and the pretrained "
        "ones changed mean accuracy on the other datasets by +2.0 points.",
        "- All methods: Of 3 finished pairs of model and method 2 have an interval above 0 and 0 "
        f"below: +1.0 [+0.5, +2.0] (full fine-tuning), +3.0 [+2.0, +4.0] (WiSE-FT, alpha 0.5) "
        f"and {minus}1.0 [{minus}2.3, +0.0] (LwF) points.",
    ]
    assert numbers == (
        "1 methods on 1 targets; 2 datasets of 97 to 200 images. "
        "Highest RI: +2.0 percentage points [-3.0, +3.0] "
        "(EfficientNet-Lite0, full fine-tuning, Noto). "
        "Lowest RI: -1.0 percentage points [-3.0, +3.0] "
        "(EfficientNet-Lite0, full fine-tuning, Noto)."
    )


def test_the_headline_says_that_there_is_one_seed(example, catalog):
    path = readme.EXAMPLE / "ri.csv"
    path.write_text(
        "model,method,target,size,seed,ri,ci_low,ci_high\nefficientnet_lite0,ft,noto,all,7,1,-3,3\n"
    )
    assert readme.headline(catalog).endswith(
        ". One seed: the intervals are over objects, for these trained networks."
    )


def test_the_headline_says_if_its_runs_are_unfinished(example, catalog):
    path = readme.EXAMPLE / "ri.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([f"{header},unfinished", *(f"{line},{int('-1.0' in line)}" for line in lines)])
    )
    gained, lost = readme.headline(catalog).split(" Lowest RI: ")
    assert lost.endswith("(EfficientNet-Lite0, full fine-tuning, Noto; training unfinished).")
    assert "unfinished" not in gained


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            "11.4,8,15,-13,-16,-9",
            "; +11.4 on classes that the target has, -13.0 on those that it lacks",
        ),
        (
            "-1,-3,1,-13,-16,-9",
            "; -1.0 on classes that the target has, -13.0 on those that it lacks",
        ),
        ("-1,-3,1,-2,-4,-0.5", ""),
        ("2,1,3,,,", ""),
    ],
    ids=["other sign", "apart", "alike", "one of them only"],
)
def test_the_headline_tells_classes_of_the_target_from_others_where_they_differ(
    example, catalog, tmp_path, parts, said
):
    keys = "ri_seen,seen_low,seen_high,ri_unseen,unseen_low,unseen_high"
    head = f"model,method,target,size,seed,ri,ci_low,ci_high,{keys}"
    (tmp_path / "ri.csv").write_text(f"{head}\nefficientnet_lite0,ft,noto,all,0,-1,-3,3,{parts}\n")
    assert (
        f"Lowest RI: -1.0 percentage points [-3.0, +3.0] "
        f"(EfficientNet-Lite0, full fine-tuning, Noto{said})." in (readme.headline(catalog))
    )


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
    "fashion_methods",
    "fashion_networks",
    "fashion_replication",
    "paper",
    "headline",
)


def test_each_part_comes_to_its_place(tmp_path, example, fashion_tables, monkeypatch):
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
    for name, part in (("config", readme.config_table()), ("figures", readme.figure_list())):
        assert f"<!-- made by make docs: {name} -->\n{part}\n<!-- end -->\nafter {name}\n" in text
    assert "stale" not in text
    assert text.count("made by") == len(PARTS) - 1
    # when it is done again, then nothing changes
    readme.renew([first, second], GRAPH)
    assert second.read_text() == text


@pytest.mark.parametrize(
    "last_parts",
    [(), ("headline", "more"), ("headline", "headline")],
    ids=["missing", "unknown", "twice"],
)
def test_a_part_has_one_place(tmp_path, example, fashion_tables, monkeypatch, last_parts):
    # given places for all parts but the headline, and for the last ones
    monkeypatch.chdir(ROOT)
    *parts_but_headline, _headline = PARTS
    pages_of_parts = pages(tmp_path, *parts_but_headline, *last_parts)
    # when
    with pytest.raises(AssertionError, match="the pages have places for"):
        readme.renew(pages_of_parts, GRAPH)
    # then nothing is written
    for page in pages_of_parts:
        assert "stale" in page.read_text()


@pytest.mark.attack("text")
@pytest.mark.parametrize("kind", ["methods", "recipes"])
def test_labels_and_sources_stay_text(with_entries, kind):
    text = "[x](javascript:alert(1)) | `b` **c**"
    table = {"methods": readme.method_table, "recipes": readme.recipe_table}[kind]
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(table(with_entries(**{kind: {"own": {"label": text, "source": text}}})))
    )
    assert "<a" not in html and html.count(f"<td>{text}</td>") == 2
