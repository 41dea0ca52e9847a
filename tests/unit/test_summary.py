"""Tables for papers: structure, escaping, and what is bold."""

import re

import pandas as pd
import pytest

from rib.analysis.comparison import COLUMNS
from rib.analysis.summary import best_of, write_summary

LABELS = {
    "models": {"net": "Net_1 & Co", "other": "Other"},
    "methods": {"ft": "full {fine}-tuning", "lwf": "LwF 50%", "probe": "probe|pipe"},
    "targets": {"a": "Set A#1", "b": "Set $B~^\\"},
}
RI = {"ft": (20.0, -12.34), "lwf": (5.0, 3.0), "probe": (4.0, 2.9)}
P = {("ft", "lwf"): 0.001, ("ft", "probe"): 0.05, ("lwf", "probe"): 0.4}


def tables(folder, sizes=("all",), models=("net", "other")):
    """Of each model: ft is better than all on a (p at most 0.05), lwf ties with probe on b; mRI ties throughout."""
    seeds, seeds_ri, compared, compared_ri = [], [], [], []
    for model in models:
        for size in sizes:
            for method, values in RI.items():
                run = {"model": model, "method": method, "size": size, "seeds": 2}
                for target, value in zip("ab", values, strict=True):
                    seeds_ri.append(
                        {**run, "target": target, "ri": value, "ci_low": value - 1, "ci_high": value + 1.26}
                    )
                mri = sum(values) / 2
                seeds.append({**run, "mri": mri, "ci_low": mri - 1, "ci_high": mri + 1})
            for (one, other), p in {**P, **{(name, "pretrained"): 0.9 for name in RI}}.items():
                pair = {"model": model, "size": size, "method": one, "other": other}
                compared.append({**pair, "p_holm": 0.3})
                compared_ri += [{**pair, "target": target, "p_holm": p} for target in "ab"]
    made = {"seeds": seeds, "seeds_ri": seeds_ri, "comparisons": compared, "comparisons_ri": compared_ri}
    for name, lines in made.items():
        columns = [name for name in COLUMNS[name] if not lines or name in lines[0]]
        pd.DataFrame(lines, columns=columns).to_csv(folder / f"{name}.csv", index=False)
    return {name: folder / f"{name}.csv" for name in made}


@pytest.fixture
def summary(tmp_path):
    """Writes the summary of some tables, and gives the text by ending."""

    def write(**choices):
        outputs = {ending: tmp_path / f"summary.{ending}" for ending in ("md", "tex", "csv")}
        write_summary(
            tables=tables(tmp_path, **choices),
            labels=LABELS,
            conditions="protocol paper; 10 % of images",
            confidence=0.95,
            outputs=outputs,
        )
        return {ending: path.read_text() for ending, path in outputs.items()}

    return write


def test_markdown_has_a_table_per_model_with_intervals_and_bold_where_nothing_ties(summary):
    text = summary()["md"]
    assert re.findall(r"^## (.*)$", text, re.M) == ["Net_1 & Co", "Other"]
    lines = [line for line in text.splitlines() if line.startswith("|")][:5]
    assert lines[0] == r"| Method | Set A#1 | Set $B~^\ | mRI |" and lines[1] == "| --- | ---: | ---: | ---: |"
    minus = "\N{MINUS SIGN}"
    expected = f"| full {{fine}}-tuning | **+20.0** [+19.0, +21.3] | {minus}12.3 [{minus}13.3, {minus}11.1] | +3.8 [+2.8, +4.8] |"
    assert lines[2] == expected
    assert r"probe\|pipe" in lines[4] and text.count("**") == 2 * 2, "only ft on a, in both models"
    assert "95 % intervals over images (mean of 2 seeds)" in text and "Protocol paper; 10 % of images." in text


def test_latex_is_booktabs_with_every_name_escaped(summary):
    text = summary()["tex"]
    assert text.count(r"\begin{tabular}{lrrr}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    body = re.search(r"\\toprule\n(.*?)\\bottomrule", text, re.S)[1].replace("\\midrule\n", "")
    rows = body.strip().splitlines()
    assert len(rows) == 4 and all(row.endswith(r" \\") and len(re.findall(r"(?<!\\)&", row)) == 3 for row in rows)
    assert rows[0] == r"Method & Set A\#1 & Set \$B\textasciitilde{}\textasciicircum{}\textbackslash{} & mRI \\"
    assert rows[1].startswith(r"full \{fine\}-tuning & $\mathbf{+20.0}_{[+19.0, +21.3]}$ & $-12.3_{[-13.3, -11.1]}$")
    assert r"LwF 50\%" in text and r"\caption{Net\_1 \& Co. RI" in text and r"95 \% intervals" in text
    assert text.count(r"\mathbf") == 2
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


def test_sizes_have_a_column_where_there_are_several(summary):
    made = summary(sizes=("10", "all"))
    assert "| Method | Size | Set A#1" in made["md"] and "| LwF 50% | 10 |" in made["md"]
    assert made["tex"].count(r"\begin{tabular}{llrrr}") == 2


def test_one_size_that_is_not_all_has_the_column_too(summary):
    assert "| LwF 50% | 0.5 |" in summary(sizes=("0.5",))["md"] and "Size" not in summary(sizes=("all",))["md"]


def test_a_model_without_methods_has_no_table(summary):
    assert "Other" not in summary(models=("net",))["md"]
    empty = summary(models=())
    assert "|" not in empty["md"] and "tabular" not in empty["tex"]


@pytest.mark.parametrize(("p", "expected"), [((0.01, 0.05), "x"), ((0.01, 0.051), None), ((0.2, 0.01), None)], ids=str)
def test_the_best_is_better_than_every_other_or_nobody_is(p, expected):
    values = pd.Series({"x": 3.0, "y": 2.0, "z": 1.0})
    pairs = [("x", "y", p[0]), ("x", "z", p[1]), ("y", "z", 0.5), ("x", "pretrained", 1.0)]
    assert best_of(values, pd.DataFrame(pairs, columns=["method", "other", "p_holm"]), 0.95) == expected


def test_a_method_alone_is_not_called_best():
    pairs = pd.DataFrame([("x", "pretrained", 0.0)], columns=["method", "other", "p_holm"])
    assert best_of(pd.Series({"x": 3.0}), pairs, 0.95) is None
