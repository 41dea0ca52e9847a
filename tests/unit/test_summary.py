"""Tables for papers: structure, escaping, and what is bold."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from rib.analyses.summary.tables import SummaryCell, best_of, cells_of, summary_files
from rib.statistics.fit import read_table

LABELS = {
    "models": {"net": "Net_1 & Co", "other": "Other"},
    "methods": {"ft": "full {fine}-tuning", "lwf": "LwF 50%", "probe": "probe|pipe"},
    "targets": {"a": "Set|A#1", "b": "Set $B~^\\"},
}
# Of every model and size. ft is better than all on a, and lwf ties with probe on b.
RI = {
    "ft": {"a": 20.0, "b": -12.35},  # which Python formats as -12.3
    "lwf": {"a": 5.0, "b": 3.0},
    "probe": {"a": 4.0, "b": 2.9},
}
MRI = {"ft": 3.83, "lwf": 4.0, "probe": 3.45, "pretrained": 0.0}
FITS = {"ft": 99.99, "lwf": float("nan"), "probe": 70.0}
P_OF_RI = {
    ("ft", "lwf"): 0.001,
    ("ft", "probe"): 0.05,
    ("lwf", "probe"): 0.4,
    ("ft", "pretrained"): 0.9,
    ("lwf", "pretrained"): 0.9,
    ("probe", "pretrained"): 0.9,
}
P_OF_MRI = 0.3  # it ties throughout
DIFFERENCE = ["reference", "difference", "diff_low", "diff_high"]
PAIR = ["method", "other", "p_holm"]
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"

# Columns of the tables that are summarized, as far as they are read.
ROW = ["model", "method", "size"]
VALUE = ["seeds", "ci_low", "ci_high", "fit", "underfitted"]
COLUMNS = {
    "mri": [*ROW, "mri", *VALUE],
    "seeds_ri": [*ROW, "target", "ri", *VALUE],
    "comparisons": [*ROW, "other", "p_holm"],
    "comparisons_ri": [*ROW, "other", "target", "p_holm"],
    "ranking": [*ROW, *DIFFERENCE],
}


def header_of_csv():
    """The first line of the CSV."""
    numbers = []
    for column in ("a", "b", "mri"):
        for ending in ("", "_low", "_high", "_fit", "_underfitted", "_best"):
            numbers.append(f"{column}{ending}")
    return ",".join(["model", "method", "size", *numbers, *DIFFERENCE])


def lines_of_ri(row, seeds, is_underfitted):
    """RI of a method on both targets.

    Args:
        row: model, method and size.
        seeds: number of seeds.
        is_underfitted: whether its runs on b are underfitted.
    """
    lines = []
    for target, ri in RI[row["method"]].items():
        line = {
            **row,
            "target": target,
            "ri": ri,
            "seeds": seeds,
            "ci_low": ri - 1,
            "ci_high": ri + 1.26,
            "fit": FITS[row["method"]],
            "underfitted": int(is_underfitted and target == "b"),
        }
        lines.append(line)
    return lines


def line_of_mri(row, seeds, is_underfitted):
    """mRI of a method; arguments as for `lines_of_ri`."""
    mri = MRI[row["method"]]
    return {
        **row,
        "mri": mri,
        "seeds": seeds,
        "ci_low": mri - 1,
        "ci_high": mri + 1,
        "fit": FITS[row["method"]],
        "underfitted": int(is_underfitted),
    }


def line_of_ranking(row, reference):
    """The difference of a method's mRI from that of the reference, which has no interval."""
    difference = MRI[row["method"]] - MRI[reference]
    line = {**row, "reference": reference, "difference": difference}
    if row["method"] != reference:
        line["diff_low"] = difference - 2
        line["diff_high"] = difference + 2.04
    return line


def write_tables(folder, sizes, models, seeds, underfitted):
    """Write the tables that are summarized; gives their files by name.

    Args:
        seeds: number of seeds.
        underfitted: methods whose runs on b are underfitted, so that they are not compared.
    """
    reference = "pretrained" if "ft" in underfitted else "ft"
    lines = {name: [] for name in COLUMNS}
    for model, size in itertools.product(models, sizes):
        for method in RI:
            row = {"model": model, "method": method, "size": size}
            is_underfitted = method in underfitted
            lines["seeds_ri"] += lines_of_ri(row, seeds, is_underfitted)
            lines["mri"].append(line_of_mri(row, seeds, is_underfitted))
            if not is_underfitted:
                lines["ranking"].append(line_of_ranking(row, reference))
        for (method, other), p_of_ri in P_OF_RI.items():
            if method in underfitted or other in underfitted:
                continue
            pair = {"model": model, "method": method, "size": size, "other": other}
            lines["comparisons"].append({**pair, "p_holm": P_OF_MRI})
            for target in ("a", "b"):
                lines["comparisons_ri"].append({**pair, "target": target, "p_holm": p_of_ri})
    files = {}
    for name, columns in COLUMNS.items():
        files[name] = folder / f"{name}.csv"
        pd.DataFrame(lines[name], columns=columns).to_csv(files[name], index=False)
    return files


def mark_other_rates(file, other_rates):
    """Add the number of runs whose rate was not chosen for the network, one for each pair.

    Args:
        other_rates: pairs of model and method.
    """
    table = pd.read_csv(file)
    pairs = zip(table["model"], table["method"], strict=True)
    counts = [int(pair in other_rates) for pair in pairs]
    table.assign(other_rate=counts).to_csv(file, index=False)


@dataclass(frozen=True)
class Summary:
    """The texts of a summary."""

    markdown: str
    latex: str
    csv: str
    csv_file: Path

    def rows(self):
        """Cells of each row of the first Markdown table, without escapes."""
        return self.rows_of_tables()[0]

    def rows_of_tables(self):
        """Cells of each row of each Markdown table, without escapes."""
        tables = []
        for table in re.findall(r"(?:^\|.*\n)+", self.markdown, re.M):
            rows = []
            for line in table.splitlines():
                cells = re.split(r"(?<!\\)\|", line)[1:-1]
                rows.append([re.sub(r"\\(\W)", r"\1", cell.strip()) for cell in cells])
            tables.append(rows)
        return tables

    def columns(self):
        """Cells of the first Markdown table by header, without the line below it."""
        header, _, *body = self.rows()
        return {name: list(cells) for name, *cells in zip(header, *body, strict=True)}

    def numbers(self):
        """The CSV by model and method."""
        return pd.read_csv(self.csv_file).set_index(["model", "method"])


@pytest.fixture
def summary(tmp_path):
    """A function that writes tables and their summary, and gives its texts."""

    def write(sizes=("all",), models=("net", "other"), seeds=2, underfitted=(), other_rates=()):
        tables = write_tables(tmp_path, sizes, models, seeds, underfitted)
        if other_rates:
            for name in ("mri", "seeds_ri"):
                mark_other_rates(tables[name], other_rates)
        texts = summary_files(
            **{name: read_table(path) for name, path in tables.items()},
            labels=LABELS,
            confidence=0.95,
            conditions="protocol paper; 10 % of images",
        )
        csv_file = tmp_path / "summary.csv"
        csv_file.write_text(texts["summary.csv"])
        return Summary(
            markdown=texts["summary.md"],
            latex=texts["summary.tex"],
            csv=texts["summary.csv"],
            csv_file=csv_file,
        )

    return write


def rendered(text):
    """HTML of Markdown."""
    return MarkdownIt("commonmark").enable("table").render(text)


# The three files


def test_markdown_has_a_table_per_model_with_intervals_and_bold_where_nothing_ties(summary):
    written = summary()
    text = written.markdown
    assert re.findall(r"<h2>(.*)</h2>", rendered(text)) == ["Net_1 &amp; Co", "Other"]

    header, _, row_of_ft, row_of_lwf, row_of_probe = written.rows()
    assert header[:4] == ["Method", "Set|A#1", "Set $B~^\\", "mRI"]
    assert row_of_ft == [
        "full {fine}-tuning",
        "**+20.0** [+19.0, +21.3]",
        f"{MINUS}12.4 [{MINUS}13.4, {MINUS}11.1]",
        "+3.8 [+2.8, +4.8]",
        "reference",
        "99.9",
    ]
    *_, difference_of_lwf, fit_of_lwf = row_of_lwf
    assert difference_of_lwf == f"+0.2 [{MINUS}1.8, +2.2]"
    assert fit_of_lwf == ""
    assert row_of_probe[0] == "probe|pipe"

    bold_cells = 2  # ft on a, in both models
    assert text.count("**") == 2 * bold_cells
    assert "†" not in text
    assert "Protocol paper; 10 % of images" in text


def test_latex_is_booktabs_with_every_name_escaped(summary):
    text = summary().latex
    for part_of_table in (r"\begin{tabular}{lrrrrr}", r"\end{tabular}"):
        assert text.count(part_of_table) == 2, "one for each model"

    first_table = re.search(r"\\toprule\n(.*?)\\bottomrule", text, re.S)[1]
    rows = first_table.replace("\\midrule\n", "").strip().splitlines()
    for row in rows:
        assert row.endswith(r" \\")
        columns = len(re.split(r"(?<!\\)&", row))
        assert columns == 6
    header, row_of_ft, row_of_lwf, _ = rows
    label_of_a = r"Set|A\#1"
    label_of_b = r"Set \$B\textasciitilde{}\textasciicircum{}\textbackslash{}"
    label_of_ft = r"full \{fine\}-tuning"
    assert header.startswith(rf"Method & {label_of_a} & {label_of_b} & mRI & ")
    assert row_of_ft.startswith(
        rf"{label_of_ft} & $\mathbf{{+20.0}}_{{[+19.0, +21.3]}}$ & $-12.4_{{[-13.4, -11.1]}}$"
    )
    assert row_of_lwf.startswith(r"LwF 50\%")
    assert text.count(r"\mathbf") == 2

    assert r"\caption{Net\_1 \& Co" in text
    for line in text.splitlines():
        is_comment = line.startswith("%")
        has_unescaped_percent = re.search(r"(?<!\\)%", line) is not None
        assert has_unescaped_percent == is_comment
    assert text.count("{") == text.count("}")
    assert text.count("[") == text.count("]")


def test_csv_has_values_and_intervals(summary):
    numbers = summary().numbers()
    assert len(numbers) == 2 * len(RI)
    line = numbers.loc[("net", "ft")]
    assert line["a"] == 20
    assert line["a_low"] == 19
    assert line["a_high"] == 21.26
    assert line["a_best"] == 1
    assert line["mri"] == pytest.approx(3.83)
    assert line["mri_best"] == 0


def test_differences_from_the_reference_are_in_all_three_files(summary):
    """With underfitted full fine-tuning, the others are compared with the pretrained model.

    Full fine-tuning has a dash.
    """
    written = summary()
    assert f"+0.2 [{MINUS}1.8, +2.2]" in written.markdown
    assert r"$+0.2_{[-1.8, +2.2]}$" in written.latex
    line = written.numbers().loc[("net", "lwf")]
    assert line["reference"] == "ft"
    assert line["difference"] == pytest.approx(0.17)
    assert line["diff_low"] == pytest.approx(-1.83)
    assert line["diff_high"] == pytest.approx(2.21)

    columns = summary(underfitted=["ft"]).columns()
    difference_of_ft, difference_of_lwf, _ = columns["mRI minus pretrained"]
    assert difference_of_ft == DASH
    assert difference_of_lwf == "+4.0 [+2.0, +6.0]"


def test_a_model_without_methods_has_no_table(summary):
    assert "Other" not in summary(models=["net"]).markdown
    without_models = summary(models=[])
    assert "|" not in without_models.markdown
    assert "tabular" not in without_models.latex
    assert without_models.csv.splitlines() == [header_of_csv()]


# Sizes


def test_one_size_that_is_not_all_has_the_column_too(summary):
    columns = summary(sizes=["0.5"]).columns()
    assert ("LwF 50%", "0.5") in zip(columns["Method"], columns["Size"], strict=True)
    assert "Size" not in summary(sizes=["all"]).markdown


def test_sizes_are_text_and_in_the_order_of_the_tables(summary):
    columns = summary(sizes=["all", "10"], models=["net"]).columns()
    assert columns["Size"] == ["all", "all", "all", "10", "10", "10"]

    written = summary(sizes=["20", "010"], models=["net"])
    assert written.columns()["Size"] == ["20", "20", "20", "010", "010", "010"]
    table = pd.read_csv(written.csv_file, dtype={"size": str})
    assert table[["model", "size", "method"]].to_numpy().tolist() == [
        ["net", "20", "ft"],
        ["net", "20", "lwf"],
        ["net", "20", "probe"],
        ["net", "010", "ft"],
        ["net", "010", "lwf"],
        ["net", "010", "probe"],
    ]
    header, first_line, *_ = written.csv.splitlines()
    assert header == header_of_csv()
    assert first_line.startswith(
        "net,ft,20,20.000000,19.000000,21.260000,99.990000,0,1,"
        "-12.350000,-13.350000,-11.090000,99.990000,0,0,3.830000,"
    )


# What is bold


@pytest.mark.parametrize(
    ("p", "expected"), [((0.01, 0.05), "x"), ((0.01, 0.051), None), ((0.2, 0.01), None)], ids=str
)
def test_the_best_is_better_than_every_other_or_nobody_is(p, expected):
    p_of_y, p_of_z = p
    values = pd.Series({"x": 3.0, "y": 2.0, "z": 1.0})
    compared = pd.DataFrame(
        [
            ("x", "y", p_of_y),
            ("x", "z", p_of_z),
            ("y", "z", 0.5),
            ("x", "pretrained", 1.0),
        ],
        columns=PAIR,
    )
    assert best_of(values, compared, 0.95) == expected


def test_a_method_alone_is_not_called_best():
    compared = pd.DataFrame([("x", "pretrained", 0.0)], columns=PAIR)
    assert best_of(pd.Series({"x": 3.0}), compared, 0.95) is None


def test_the_best_may_stand_on_either_side_of_its_pairs():
    compared = pd.DataFrame([("w", "x", 0.01), ("x", "y", 0.9), ("w", "y", 0.01)], columns=PAIR)
    y_is_highest = pd.Series({"w": 1.0, "x": 2.0, "y": 3.0})
    assert best_of(y_is_highest, compared, 0.95) is None
    w_is_highest = pd.Series({"w": 9.0, "x": 2.0, "y": 3.0})
    assert best_of(w_is_highest, compared, 0.95) == "w"
    all_are_told_apart = compared.assign(p_holm=0.01)
    assert best_of(pd.Series({"y": 3.0, "x": 2.0}), all_are_told_apart, 0.95) == "y"


def value_on_a(model, size, method, value):
    """A line of values on the target a, with its interval."""
    return {
        "model": model,
        "size": size,
        "method": method,
        "column": "a",
        "value": value,
        "ci_low": value - 1,
        "ci_high": value + 1,
        "fit": 90.0,
        "underfitted": 0,
    }


def test_every_model_has_its_own_best():
    """Of one model ft, of the other the probe; of another size nobody."""
    # given
    values = pd.DataFrame(
        [
            value_on_a("m", "all", "ft", 2.0),
            value_on_a("m", "all", "probe", 1.0),
            value_on_a("n", "all", "probe", 2.0),
            value_on_a("n", "all", "ft", 1.0),
            value_on_a("n", "10", "ft", 2.0),
            value_on_a("n", "10", "probe", 1.0),
        ]
    )
    compared = pd.DataFrame(
        [
            ("m", "all", "a", "ft", "probe", 0.01),
            ("n", "all", "a", "ft", "probe", 0.02),
            ("n", "10", "a", "ft", "probe", 0.2),
        ],
        columns=["model", "size", "column", *PAIR],
    )
    # when
    cells = cells_of(values, compared, 0.95)
    # then
    assert len(cells) == 6
    best_cells = {key for key, cell in cells.items() if cell.best}
    assert best_cells == {("m", "all", "ft", "a"), ("n", "all", "probe", "a")}
    assert cells["n", "10", "probe", "a"] == SummaryCell(
        value=1.0, low=0.0, high=2.0, fit=90.0, underfitted=0, best=0
    )


def test_underfitted_cells_are_marked_and_their_method_is_not_compared(summary):
    """The others are compared among themselves."""
    written = summary(underfitted=["ft"])

    _, _, row_of_ft, *rows_of_others = written.rows()
    _, on_a, on_b, mri, difference, fit = row_of_ft
    assert "†" in on_b
    assert "†" in mri
    assert "†" not in on_a + difference + fit
    assert "**" not in on_a
    for row in rows_of_others:
        assert "†" not in "".join(row)

    assert r"$-12.4^{\dag}_{[-13.4, -11.1]}$" in written.latex

    numbers = written.numbers()
    line = numbers.loc[("net", "ft")]
    assert line["a_underfitted"] == 0
    assert line["b_underfitted"] == 1
    assert line["mri_underfitted"] == 1
    assert numbers["a_best"].sum() == 0, "lwf and probe tie"

    assert "**" not in summary(underfitted=list(RI)).markdown


def test_methods_whose_rate_was_not_chosen_for_the_network_are_marked(summary):
    # given
    written = summary(other_rates=[("net", "lwf")])
    # when
    labels_of_net, labels_of_other = (
        [label for label, *_ in rows[2:]] for rows in written.rows_of_tables()
    )
    # then
    assert labels_of_net == ["full {fine}-tuning", "LwF 50% §", "probe|pipe"]
    assert labels_of_other == ["full {fine}-tuning", "LwF 50%", "probe|pipe"]
    assert r"LwF 50\% \S{}" in written.latex
    assert "§" not in summary().markdown


# Labels


@pytest.mark.parametrize("where", LABELS)
def test_labels_in_markdown_stay_text(summary, monkeypatch, where):
    # given
    html_before = rendered(summary().markdown)
    first_name, *_ = LABELS[where]
    first_label = LABELS[where][first_name]
    hostile_label = "[x](javascript:alert(1)) **b** `c` | d"
    # when
    monkeypatch.setitem(LABELS, where, {**LABELS[where], first_name: hostile_label})
    html = rendered(summary().markdown)
    # then
    first_label_in_html = first_label.replace("&", "&amp;")
    assert html == html_before.replace(first_label_in_html, hostile_label)
