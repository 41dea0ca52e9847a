"""Tables for papers: structure, escaping, and what is bold."""

import re

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from rib.analyses.comparison.settings import SummaryLabels, SummarySettings
from rib.analyses.comparison.summary import (
    Cell,
    SummarizedTables,
    SummaryFiles,
    best_of,
    cells_of,
    write_summary,
)
from rib.analysis.comparison import COLUMNS

LABELS = {
    "models": {"net": "Net_1 & Co", "other": "Other"},
    "methods": {"ft": "full {fine}-tuning", "lwf": "LwF 50%", "probe": "probe|pipe"},
    "targets": {"a": "Set|A#1", "b": "Set $B~^\\"},
}
RI = {"ft": (20.0, -12.34), "lwf": (5.0, 3.0), "probe": (4.0, 2.9)}
ENDS = ("", "_low", "_high", "_fit", "_unfinished", "_best")
DIFFERENCE = ["reference", "difference", "diff_low", "diff_high"]
NUMBERS = [column + end for column in ("a", "b", "mri") for end in ENDS]
HEADER = ",".join(["model", "method", "size", *NUMBERS, *DIFFERENCE])
FITS = {"ft": 99.99, "lwf": float("nan"), "probe": 70.0}
P = {("ft", "lwf"): 0.001, ("ft", "probe"): 0.05, ("lwf", "probe"): 0.4}


def tables(folder, sizes=("all",), models=("net", "other"), seeds_run=2, unfinished=()):
    """Of each model, ft is better than all on a (p at most 0.05), and lwf ties with probe on b.

    mRI ties throughout.

    `unfinished`: methods whose runs on b are.
    """
    mean, seeds_ri, compared, compared_ri, ranking = [], [], [], [], []
    for model in models:
        for size in sizes:
            for method, values in RI.items():
                run = {"model": model, "method": method, "size": size, "seeds": seeds_run}
                for target, value in zip("ab", values, strict=True):
                    interval = {"ci_low": value - 1, "ci_high": value + 1.26}
                    fit = {
                        "fit": FITS[method],
                        "unfinished": int(method in unfinished and target == "b"),
                    }
                    seeds_ri.append({**run, "target": target, "ri": value, **interval, **fit})
                mri = sum(values) / 2
                fit["unfinished"] = int(method in unfinished)
                mean.append({**run, "mri": mri, "ci_low": mri - 1, "ci_high": mri + 1, **fit})
                if method not in unfinished:
                    reference = "pretrained" if "ft" in unfinished else "ft"
                    difference = mri - (0 if "ft" in unfinished else sum(RI["ft"]) / 2)
                    ends = (
                        (np.nan, np.nan)
                        if method == reference
                        else (difference - 2, difference + 2.04)
                    )
                    ranking.append(
                        {
                            **run,
                            **dict(zip(DIFFERENCE, (reference, difference, *ends), strict=True)),
                        }
                    )
            for (one, other), p in {**P, **{(name, "pretrained"): 0.9 for name in RI}}.items():
                pair = {"model": model, "size": size, "method": one, "other": other}
                if {one, other} & set(unfinished):
                    continue
                compared.append({**pair, "p_holm": 0.3})
                compared_ri += [{**pair, "target": target, "p_holm": p} for target in "ab"]
    made = {
        "mri": mean,
        "seeds_ri": seeds_ri,
        "comparisons": compared,
        "comparisons_ri": compared_ri,
    }
    made["ranking"] = ranking
    known = {**COLUMNS, "mri": ["model", "method", "size", "mri", "ci_low", "ci_high", "seeds"]}
    for name, lines in made.items():
        columns = [
            key for key in [*known[name], "fit", "unfinished"] if not lines or key in lines[0]
        ]
        pd.DataFrame(lines, columns=columns).to_csv(folder / f"{name}.csv", index=False)
    return {name: folder / f"{name}.csv" for name in made}


def rows_of(text):
    """Cells of each row of the first Markdown table, without escapes."""
    table = re.search(r"(?:^\|.*\n)+", text, re.M)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
    return [[re.sub(r"\\(\W)", r"\1", cell.strip()) for cell in row] for row in rows]


def rendered(text):
    """HTML of Markdown."""
    return MarkdownIt("commonmark").enable("table").render(text)


@pytest.fixture
def summary(tmp_path):
    """Writes the summary of some tables, and gives the text by ending."""

    def write(**choices):
        files = {ending: tmp_path / f"summary.{ending}" for ending in ("md", "tex", "csv")}
        settings = SummarySettings(
            labels=SummaryLabels(**LABELS),
            conditions="protocol paper; 10 % of images",
            confidence=0.95,
            code="",
        )
        write_summary(
            SummarizedTables(**tables(tmp_path, **choices)),
            settings,
            SummaryFiles(markdown=files["md"], latex=files["tex"], csv=files["csv"]),
        )
        return {ending: path.read_text() for ending, path in files.items()}

    return write


def test_markdown_has_a_table_per_model_with_intervals_and_bold_where_nothing_ties(summary):
    text = summary()["md"]
    assert re.findall(r"<h2>(.*)</h2>", rendered(text)) == ["Net_1 &amp; Co", "Other"]
    rows, minus = rows_of(text), "\N{MINUS SIGN}"
    assert rows[0] == [
        "Method",
        "Set|A#1",
        "Set $B~^\\",
        "mRI",
        "mRI minus full {fine}-tuning",
        "Fit (%)",
    ]
    assert [(cell[0], cell[-1]) for cell in rows[1]] == [(":", "-"), *[("-", ":")] * 5]
    interval = f"{minus}12.3 [{minus}13.3, {minus}11.1]"
    assert rows[2] == [
        "full {fine}-tuning",
        "**+20.0** [+19.0, +21.3]",
        interval,
        "+3.8 [+2.8, +4.8]",
        "reference",
        "99.9",
    ]
    assert rows[3][-2] == f"+0.2 [{minus}1.8, +2.2]"
    assert rows[3][-1] == "" and "†" not in text
    assert rows[4][0] == "probe|pipe" and text.count("**") == 2 * 2, "only ft on a, in both models"
    assert (
        re.search(r"95 % .*\(mean of 2 seeds\)", text) and "Protocol paper; 10 % of images." in text
    )


def test_latex_is_booktabs_with_every_name_escaped(summary):
    text = summary()["tex"]
    assert text.count(r"\begin{tabular}{lrrrrr}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    body = re.search(r"\\toprule\n(.*?)\\bottomrule", text, re.S)[1].replace("\\midrule\n", "")
    rows = body.strip().splitlines()
    assert len(rows) == 4 and all(
        row.endswith(r" \\") and len(re.findall(r"(?<!\\)&", row)) == 5 for row in rows
    )
    first, second = r"Set|A\#1", r"Set \$B\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert (
        rows[0]
        == rf"Method & {first} & {second} & mRI & mRI minus full \{{fine\}}-tuning & Fit (\%) \\"
    )
    assert rows[1].startswith(
        r"full \{fine\}-tuning & $\mathbf{+20.0}_{[+19.0, +21.3]}$ & $-12.3_{[-13.3, -11.1]}$"
    )
    assert r"LwF 50\%" in text and r"\caption{Net\_1 \& Co. RI" in text and r"95 \% " in text
    assert text.count(r"\mathbf") == 2 and r"\label{tab:rib-net}" in text
    unescaped = [line for line in text.splitlines() if re.search(r"(?<!\\)%", line)]
    assert unescaped == [line for line in text.splitlines() if line.startswith("%")]
    for opening, closing in ("{}", "[]"):
        assert text.count(opening) == text.count(closing)


def test_csv_has_values_and_intervals(summary, tmp_path):
    summary()
    table = pd.read_csv(tmp_path / "summary.csv").set_index(["model", "method"])
    line = table.loc["net", "ft"]
    assert (line["a"], line["a_low"], line["a_high"], line["a_best"]) == (20, 19, 21.26, 1)
    assert line["mri"] == pytest.approx(3.83) and line["mri_best"] == 0 and len(table) == 6


def test_differences_from_the_reference_are_in_all_three_files(summary, tmp_path):
    """With unfinished full fine-tuning, the others are compared with the pretrained model.

    Full fine-tuning has a dash.
    """
    text = summary()
    assert r"$+0.2_{[-1.8, +2.2]}$" in text["tex"]
    line = pd.read_csv(tmp_path / "summary.csv").set_index(["model", "method"]).loc["net", "lwf"]
    assert line[DIFFERENCE].tolist() == [
        "ft",
        pytest.approx(0.17),
        pytest.approx(-1.83),
        pytest.approx(2.21),
    ]
    rows = rows_of(summary(unfinished=("ft",))["md"])
    assert rows[0][-2] == "mRI minus pretrained"
    assert rows[2][-2] == "\N{EN DASH}" and rows[3][-2] == "+4.0 [+2.0, +6.0]"


def test_sizes_have_a_column_where_there_are_several(summary):
    made = summary(sizes=("10", "all"))
    rows = rows_of(made["md"])
    assert rows[0][:2] == ["Method", "Size"] and ["LwF 50%", "10"] in [row[:2] for row in rows]
    assert made["tex"].count(r"\begin{tabular}{llrrrrr}") == 2


def test_one_size_that_is_not_all_has_the_column_too(summary):
    assert rows_of(summary(sizes=("0.5",))["md"])[3][:2] == ["LwF 50%", "0.5"]
    assert "Size" not in summary(sizes=("all",))["md"]


def test_a_model_without_methods_has_no_table(summary):
    assert "Other" not in summary(models=("net",))["md"]
    empty = summary(models=())
    assert "|" not in empty["md"] and "tabular" not in empty["tex"]
    assert empty["csv"].splitlines() == [HEADER]


@pytest.mark.parametrize(
    ("p", "expected"), [((0.01, 0.05), "x"), ((0.01, 0.051), None), ((0.2, 0.01), None)], ids=str
)
def test_the_best_is_better_than_every_other_or_nobody_is(p, expected):
    values = pd.Series({"x": 3.0, "y": 2.0, "z": 1.0})
    pairs = [("x", "y", p[0]), ("x", "z", p[1]), ("y", "z", 0.5), ("x", "pretrained", 1.0)]
    assert (
        best_of(values, pd.DataFrame(pairs, columns=["method", "other", "p_holm"]), 0.95)
        == expected
    )


def test_a_method_alone_is_not_called_best():
    pairs = pd.DataFrame([("x", "pretrained", 0.0)], columns=["method", "other", "p_holm"])
    assert best_of(pd.Series({"x": 3.0}), pairs, 0.95) is None


def test_a_p_of_the_level_itself_is_enough():
    values, pairs = pd.Series({"x": 3.0, "y": 2.0}), [("x", "y", 0.5)]
    assert best_of(values, pd.DataFrame(pairs, columns=["method", "other", "p_holm"]), 0.5) == "x"
    pairs = [("x", "y", 0.500001)]
    assert best_of(values, pd.DataFrame(pairs, columns=["method", "other", "p_holm"]), 0.5) is None


def test_the_best_may_stand_on_either_side_of_its_pairs():
    pairs = pd.DataFrame(
        [("w", "x", 0.01), ("x", "y", 0.9), ("w", "y", 0.01)], columns=["method", "other", "p_holm"]
    )
    assert best_of(pd.Series({"w": 1.0, "x": 2.0, "y": 3.0}), pairs, 0.95) is None
    assert best_of(pd.Series({"w": 9.0, "x": 2.0, "y": 3.0}), pairs, 0.95) == "w"
    assert best_of(pd.Series({"y": 3.0, "x": 2.0}), pairs.assign(p_holm=0.01), 0.95) == "y"


def test_sizes_are_text_and_in_the_order_of_the_tables(summary, tmp_path):
    made = summary(sizes=("all", "10"), models=("net",))
    assert [row[1] for row in rows_of(made["md"])[2:]] == ["all"] * 3 + ["10"] * 3
    made = summary(sizes=("20", "010"), models=("net",))
    assert [row[1] for row in rows_of(made["md"])[2:]] == ["20"] * 3 + ["010"] * 3
    table = pd.read_csv(tmp_path / "summary.csv", dtype={"size": str})
    methods = ["ft", "lwf", "probe"]
    assert table[["model", "size", "method"]].to_numpy().tolist() == [
        *(["net", size, method] for size in ("20", "010") for method in methods)
    ]
    assert made["csv"].splitlines()[0] == HEADER
    assert (
        "net,ft,20,20.000000,19.000000,21.260000,99.990000,0,1,"
        "-12.340000,-13.340000,-11.080000,99.990000,0,0,3.830000," in made["csv"]
    )


def test_one_seed_is_not_mentioned(summary):
    made = summary(seeds_run=1)
    assert "seeds" not in made["md"] + made["tex"]


def test_every_model_has_its_own_best():
    """Of one model ft, of the other the probe; of another size nobody."""
    values = pd.DataFrame(
        [
            (model, size, method, "a", value, value - 1, value + 1, 90.0, 0)
            for model, size, order in (
                ("m", "all", "ft probe"),
                ("n", "all", "probe ft"),
                ("n", "10", "ft probe"),
            )
            for value, method in zip((2.0, 1.0), order.split(), strict=True)
        ],
        columns=[
            "model",
            "size",
            "method",
            "column",
            "value",
            "ci_low",
            "ci_high",
            "fit",
            "unfinished",
        ],
    )
    compared = pd.DataFrame(
        [
            ("m", "all", "a", "ft", "probe", 0.01),
            ("n", "all", "a", "ft", "probe", 0.02),
            ("n", "10", "a", "ft", "probe", 0.2),
        ],
        columns=["model", "size", "column", "method", "other", "p_holm"],
    )
    cells = cells_of(values, compared, 0.95)
    assert {key for key, cell in cells.items() if cell.best} == {
        ("m", "all", "ft", "a"),
        ("n", "all", "probe", "a"),
    }
    assert cells["n", "10", "probe", "a"] == Cell(1.0, 0.0, 2.0, 90.0, 0, False) and len(cells) == 6


def test_unfinished_cells_are_marked_and_their_method_is_not_compared(summary, tmp_path):
    """The others are compared among themselves."""
    made = summary(unfinished=("ft",))
    rows = rows_of(made["md"])
    assert [("†" in cell) for cell in rows[2]] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ] and "**" not in rows[2][1]
    assert (
        not any("†" in cell for row in rows[3:] for cell in row)
        and "†: training unfinished" in made["md"]
    )
    assert (
        r"$-12.3^{\dag}_{[-13.3, -11.1]}$" in made["tex"]
        and r"\dag{}: training unfinished" in made["tex"]
    )
    table = pd.read_csv(tmp_path / "summary.csv").set_index(["model", "method"])
    assert table.loc[
        ("net", "ft"), ["a_unfinished", "b_unfinished", "mri_unfinished"]
    ].tolist() == [0, 1, 1]
    assert table["a_best"].sum() == 0, "lwf and probe tie"
    assert "**" not in summary(unfinished=tuple(RI))["md"]


@pytest.mark.attack("text")
@pytest.mark.parametrize("where", LABELS)
def test_labels_in_markdown_stay_text(summary, monkeypatch, where):
    usual, hostile = rendered(summary()["md"]), "[x](javascript:alert(1)) **b** `c` | d"
    first = next(iter(LABELS[where].values()))
    monkeypatch.setitem(
        LABELS,
        where,
        {name: hostile if label == first else label for name, label in LABELS[where].items()},
    )
    assert rendered(summary()["md"]) == usual.replace(first.replace("&", "&amp;"), hostile)
