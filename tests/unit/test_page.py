"""The page of a run: its tables, what it says of its jobs, and what it begins with."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from PIL import Image

from rib.analyses.robustness import describe as robustness
from rib.base.progress import duration
from rib.records import provenance
from rib.report.page import (
    MOST_ROWS,
    page_tables,
    run_facts,
    with_choices,
    write_page,
)
from rib.report.report_settings import PageSettings, ShownFigure
from rib.schema.analysis import Column, Table
from tiny.projects.descriptions import description
from tiny.projects.project import ROOT
from tiny.tables.analyses import figures as declared_figures
from tiny.tables.analyses import shown

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"  # stands for a number that there is not
ABOUT = {
    "config": {"protocol": "paper", "seeds": [0], "statistics": {"confidence": 0.95, "seed": 3}},
    "config_file": {"protocol": "paper", "seeds": [0], "catalog": []},
    "family": {"title": "Toys & <games>", "description": "drawn twice", "limits": None},
    "targets": ["a"],
    "ood": ["a", "b"],
    "sizes": ["all"],
    "shown_size": "all",
    "conditions": ["protocol paper", "at most 9 images per dataset"],
    "datasets": {
        "a": {"label": "A", "licence": "MIT", "origin": "here"},
        "b": {"label": "B", "licence": "MIT", "origin": "here"},
    },
    "models": {
        "net": {"label": "Net", "architecture": "n", "pretraining": "IN-1K", "licence": "MIT"}
    },
    "methods": {
        "ft": {
            "label": "full fine-tuning",
            "settings": {"lr": 0.1},
            "source": "somewhere",
            "can_fit": True,
        }
    },
    "fit_threshold": 0.95,
    "sweeps": {},
}
RUN = {"model": "net", "method": "ft", "target": "a", "size": "all", "seed": 0}
PRETRAINED_RUN = {**RUN, "method": "pretrained", "target": "none"}
# Tables as their analysis declares them.
DECLARED = {
    "mri": robustness.MRI,
    "ri": robustness.RI,
    "accuracy": robustness.ACCURACY,
    "in_distribution": robustness.IN_DISTRIBUTION,
    "leak_free": robustness.LEAK_FREE,
}
MACHINE = {"processor": "P", "system": "S", "python": "3.11"}


def job_record(**changes):
    """The record of a job that fine-tuned for a minute, with some of its entries changed."""
    record = {
        "rule": "finetune",
        "started": "2026-01-01T10:00:00+00:00",
        "ended": "2026-01-01T10:00:00+00:00",
        "seconds": 60.0,
        "cpu_seconds": 1.0,
        "peak_memory": 10**6,
        "log": "l",
        "cfg": {},
        "inputs": {},
        "outputs": {},
        "sizes": {},
        "commit": "abc",
        "versions": {"torch": "2.6"},
        "machine": MACHINE,
    }
    return {**record, **changes}


def write_table(path, rows):
    """Write a CSV file; gives its path."""
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def rows_of_accuracy(run, **fit):
    """A run's rows on both datasets."""
    return [
        {**run, "dataset": name, "n": 1200, "correct": 600, "accuracy": 50.0, **fit}
        for name in ("a", "b")
    ]


@pytest.fixture
def tables(tmp_path):
    """Tables of a run of one model, method, target and seed, whose run is underfitted."""
    change = {"ci_low": -2.0, "ci_high": 0.04, "fit": 80.0, "underfitted": 1}
    mri = {
        "model": "net",
        "method": "ft",
        "size": "all",
        "mri": -1.25,
        **change,
        "ood_before": 50.0,
        "ood_after": 48.75,
        "on_target": 90.0,
        "on_target_low": 88.0,
        "on_target_high": 91.0,
        "on_target_before": 40.0,
        "seed_sd": None,
        "seed_low": None,
        "seed_high": None,
        "seeds": 1,
        "targets": 2,
        "target_sd": 3.0,
        "target_low": -28.0,
        "target_high": 26.0,
    }
    ri = {
        **RUN,
        "n": 2400,
        "ri": -0.04,
        **change,
        "ri_seen": 3.0,
        "seen_low": 1.0,
        "seen_high": 4.0,
        "n_seen": 2400.0,
        "ri_unseen": None,
        "unseen_low": None,
        "unseen_high": None,
        "n_unseen": None,
    }
    accuracy_before = rows_of_accuracy(PRETRAINED_RUN, fit=None, underfitted=0)
    accuracy_after = rows_of_accuracy(RUN, fit=80.0, underfitted=1)
    fit = {**RUN, "fit": 80.0, "underfitted": "yes", "device": "cpu in fp32"}
    return {
        "mri": write_table(tmp_path / "mri.csv", [mri]),
        "ri": write_table(tmp_path / "ri.csv", [ri]),
        "accuracy": write_table(tmp_path / "accuracy.csv", [*accuracy_before, *accuracy_after]),
        "fit": write_table(tmp_path / "fit.csv", [fit]),
    }


def shown_table(file, about=ABOUT):
    """A table as the page shows it.

    Args:
        file: CSV, whose name without ending is that of the table.
    """
    settings = {file.stem: shown(file, DECLARED[file.stem])}
    (table,) = page_tables(settings, description(about))
    for row in table.rows:
        assert len(row) == len(table.header)
    return table


def texts_of_rows(table):
    """The texts of a shown table, row by row."""
    return [[cell.text for cell in row] for row in table.rows]


def cell_of(table, row, header):
    """The cell of a shown table below a header, which no other column has."""
    assert table.header.count(header) == 1
    return table.rows[row][table.header.index(header)]


# Tables


def test_tables_have_labels_signs_and_values_to_sort_by(tables):
    # when
    mri, ri, accuracy = [shown_table(tables[name]) for name in ("mri", "ri", "accuracy")]
    # then
    assert mri.header[:4] == ["Model", "Method", "mRI", "95 % confidence interval"]
    assert mri.rows[0][:4] == [
        ("Net", "Net"),
        ("full fine-tuning †", "full fine-tuning †"),
        (f"{MINUS}1.3", -1.25),
        (f"{MINUS}2.0 to +0.0", -2.0),
    ]
    # and of RI
    assert cell_of(ri, 0, "RI") == ("+0.0", -0.04)
    assert cell_of(ri, 0, "Fit (%)") == ("80.0", 80.0)
    # and of accuracies, with the pretrained model after the fine-tuned one
    assert cell_of(accuracy, 0, "A") == ("50.0", 50.0)
    assert cell_of(accuracy, 0, "B") == ("50.0", 50.0)
    assert cell_of(accuracy, 0, "Fit (%)") == ("80.0", 80.0)
    assert cell_of(accuracy, 1, "Method").text == "pretrained"
    assert cell_of(accuracy, 1, "Fit (%)").text == DASH


def test_columns_that_say_nothing_are_left_out(tables):
    """Size and seed where there is one, a spread over one seed, and RI of all classes once more."""
    # given
    config = {**ABOUT["config"], "seeds": [0, 1]}
    several_sizes_and_seeds = {**ABOUT, "sizes": ["all", "5"], "config": config}
    # when
    header = shown_table(tables["ri"]).header
    header_of_several = shown_table(tables["ri"], several_sizes_and_seeds).header
    header_of_means = shown_table(tables["mri"], several_sizes_and_seeds).header
    # then
    assert "Size" not in header
    assert "Seed" not in header
    assert "Size" in header_of_several
    assert "Seed" in header_of_several
    assert not any("over seeds" in name for name in header_of_means)
    assert "Other classes" not in header
    # but where there are other classes
    ri_of_other_classes = pd.read_csv(tables["ri"]).assign(ri_unseen=1.0, n_unseen=7)
    write_table(tables["ri"], ri_of_other_classes)
    assert "Other classes" in shown_table(tables["ri"]).header


def test_models_of_one_label_keep_rows_of_their_own(tables):
    # given
    accuracy = pd.read_csv(tables["accuracy"])
    accuracy_of_twin = accuracy.assign(model="twin", accuracy=90.0)
    write_table(tables["accuracy"], pd.concat([accuracy, accuracy_of_twin]))
    models = {**ABOUT["models"], "twin": ABOUT["models"]["net"]}
    # when
    table = shown_table(tables["accuracy"], {**ABOUT, "models": models})
    # then
    accuracies_on_a = [cell_of(table, row, "A").sort_key for row in range(len(table.rows))]
    assert sorted(accuracies_on_a) == [50.0, 50.0, 90.0, 90.0]


def declared_table(folder, csv, *columns):
    """A table `x` as the page shows it.

    Args:
        csv: its text.
        columns: that are shown.
    """
    table_file = folder / "x.csv"
    table_file.write_text(csv)
    table = Table(title="X", question="why", note="N", columns=columns)
    (page_table,) = page_tables({"x": shown(table_file, table)}, description(ABOUT))
    return page_table


def test_the_note_of_a_comparison_of_few_objects_says_so(tmp_path):
    p = Column("P", "p")
    table_of_few = declared_table(tmp_path, "p,objects\n0.1,120\n0.2,40\n", p)
    table_of_enough = declared_table(tmp_path, "p,objects\n0.1,120\n0.2,100\n", p)
    assert "40" in table_of_few.note
    assert table_of_enough.note == "N"


def test_an_analysis_table_is_shown_as_its_columns_say(tmp_path):
    # given
    csv = "method,n,d,low,high,p\nft,3,-1.25,-2,0.04,0.01234\nft,4,,,,0.5\n"
    columns = [
        Column("Method", "method"),
        Column("Images", "n"),
        Column("Change", "d", form="signed", interval=("low", "high")),
        Column("P", "p", form="p"),
    ]
    # when
    table = declared_table(tmp_path, csv, *columns)
    # then
    assert texts_of_rows(table) == [
        ["full fine-tuning", "3", f"{MINUS}1.3", f"{MINUS}2.0 to +0.0", "0.012"],
        ["full fine-tuning", "4", DASH, DASH, "0.5"],
    ]


def test_counts_beside_missing_values_have_no_decimals(tmp_path):
    csv = "epoch,n\n0,5000\n,\n"
    columns = [Column("Epoch", "epoch", form="count"), Column("Images", "n", form="count")]
    table = declared_table(tmp_path, csv, *columns)
    assert texts_of_rows(table) == [["0", "5,000"], [DASH, DASH]]


def test_a_number_without_an_interval_and_labels_of_pairs(tmp_path):
    # given
    csv = "first,second,r,low,high\na,other,-0.12345,,\na,other,0.5,0.4,0.6\n"
    columns = [
        Column("First", "first"),
        Column("Second", "second"),
        Column("R", "r", form="decimals", interval=("low", "high")),
    ]
    # when
    table = declared_table(tmp_path, csv, *columns)
    # then
    assert texts_of_rows(table) == [
        ["A", "other", f"{MINUS}0.123", DASH],
        ["A", "other", "0.500", "0.400 to 0.600"],
    ]


def test_means_are_of_chosen_variants_not_of_the_best_of_all(tmp_path):
    """Given two variants of which the worse one was chosen on held-out images."""
    # given
    sweep = {"label": "full fine-tuning", "variants": ["ft-lr1", "ft-lr2"]}
    config_of_choice = {**ABOUT["config"], "select": "target"}
    config_of_upper_bound = {**ABOUT["config"], "select": "oracle"}
    mean = {"model": "net", "size": "all", "underfitted": 0, "ci_low": -1.0, "ci_high": 9.0}
    means = pd.DataFrame(
        [{**mean, "method": "ft-lr1", "mri": 2.0}, {**mean, "method": "ft-lr2", "mri": 8.0}]
    )
    choice = {"model": "net", "method": "ft", "size": "all", "ci_low": 1.0, "ci_high": 3.0}
    choice_on_a = {**choice, "target": "a", "ri": 5.0}
    choice_on_mean = {**choice, "target": "mean", "ri": 2.0}
    selection = write_table(tmp_path / "selection.csv", [choice_on_a, choice_on_mean])

    def mri_by_method(config):
        about = description({**ABOUT, "sweeps": {"ft": sweep}, "config": config})
        table = with_choices(means, selection, about)
        return table.set_index("method")["mri"].to_dict()

    # then
    assert mri_by_method(config_of_choice) == {"ft": 2.0}
    upper_bound_is_no_result = {"ft-lr1": 2.0, "ft-lr2": 8.0}
    assert mri_by_method(config_of_upper_bound) == upper_bound_is_no_result


# Jobs


def test_a_mixture_names_libraries_and_rules():
    # given
    versions = {"torch": "2.6", "numpy": "2.0"}
    newer_versions = {"torch": "2.7", "numpy": "2.0"}
    jobs_of_two_versions = [
        job_record(rule="prepare", versions=versions),
        job_record(rule="finetune", versions=versions),
        job_record(rule="evaluate", versions=versions),
        job_record(rule="evaluate", versions=newer_versions),
        job_record(rule="evaluate", versions=newer_versions),
    ]
    other_machine = {**MACHINE, "processor": "another"}
    jobs_of_two_machines = [job_record(), job_record(rule="evaluate", machine=other_machine)]
    jobs_of_different_libraries = [
        job_record(versions={"torch": "2.6"}),
        job_record(versions={"pandas": "3"}),
    ]
    # then
    mixed_versions = "torch 2.6 (prepare, finetune, evaluate), 2.7 (evaluate)"
    assert run_facts(jobs_of_two_versions).mixed == [mixed_versions]
    mixed_processors = "processor P (finetune), another (evaluate)"
    assert run_facts(jobs_of_two_machines).mixed == [mixed_processors]
    # and a stage that lacks a library is no mixture
    assert run_facts(jobs_of_different_libraries).mixed == []


def test_the_cards_of_jobs_are_counted():
    on_a_card = {**MACHINE, "device": "cuda", "gpu": "Card 1"}
    on_another = {**MACHINE, "device": "cuda", "gpu": "Card 2"}
    machines = [MACHINE, on_a_card, on_another, on_a_card]
    facts = run_facts([job_record(machine=machine) for machine in machines])
    assert facts.cards == [("Card 1", 2), ("Card 2", 1)]
    assert run_facts([job_record()]).cards == []


def test_a_page_names_kinds_of_devices_if_runs_have_several(tmp_path, tables):
    of_one_kind = page_of(tmp_path, tables)
    runs = pd.read_csv(tables["fit"])
    on_a_card = runs.assign(seed=1, device="cuda (compute capability 9.0) in bf16")
    write_table(tables["fit"], pd.concat([runs, on_a_card]))
    page = page_of(tmp_path, tables)
    assert "cuda (compute capability 9.0) in bf16" in page and "cpu in fp32" in page
    assert "cpu in fp32" not in of_one_kind


def test_busy_time_counts_overlaps_once_and_pauses_not_at_all():
    # given jobs of which three overlap, from 10:00 to 10:03
    records = [
        job_record(started="2026-01-01T10:00:00+00:00", seconds=120.0),
        job_record(started="2026-01-01T10:01:00+00:00", seconds=120.0),
        job_record(started="2026-01-01T10:01:00+00:00", seconds=30.0),
        job_record(started="2026-01-01T10:30:00+00:00", seconds=60.0),
    ]
    # when
    facts = run_facts(records)
    # then
    assert facts.busy == 180 + 60
    assert facts.seconds == 120 + 120 + 30 + 60
    assert facts.jobs == 4
    assert facts.started.startswith("2026-01-01 10:00")
    assert facts.ended.startswith("2026-01-01 10:31")
    (row,) = facts.stage_rows
    assert row == [
        ("finetune", "finetune"),
        ("4", 4),
        ("5 min 30 s", 330),  # of all jobs
        ("2 min 00 s", 120),  # of the longest
        ("4.0 s", 4),  # of processors
        ("1.00MB", 10**6),  # of memory
        ("0.00B", 0),  # written
    ]


def test_costs_of_a_rule_add_up_and_its_largest_job_is_shown():
    # given
    records = [
        job_record(cpu_seconds=50.0, peak_memory=10**9, sizes={"x": 10**6 - 1, "y": 1}),
        job_record(cpu_seconds=10.0, peak_memory=2 * 10**9, sizes={"x": 0, "y": 1}),
    ]
    # when
    (row,) = run_facts(records).stage_rows
    # then
    *_, processor_time, peak_memory, written_bytes = row
    assert processor_time == ("1 min 00 s", 60)
    assert peak_memory == ("2.00GB", 2 * 10**9)
    assert written_bytes == ("1.00MB", 10**6 + 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (248.4, "4 min 08 s"), (7500, "2 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


# The page


def write_png(path):
    """Write a small figure; gives its path."""
    Image.new("RGB", (20, 10)).save(path)
    return path


def page_of(folder, tables, *, records=None, figures=(), about=ABOUT, questions=None):
    """The page of a run as HTML.

    Args:
        tables: CSV files by name.
        records: of its jobs, by default one of fine-tuning.
        figures: PNG files.
        questions: question of each figure.
    """
    record_files = []
    for i, record in enumerate([job_record()] if records is None else records):
        record_file = folder / f"{i}.json"
        provenance.write(record_file, record)
        record_files.append(str(record_file))
    manifest = folder / "manifest.json"
    manifest.write_text('{"corrupt": ["x/1.jpg"]}')
    shown_figures = {}
    for path in figures:
        _, figure = declared_figures()[path.stem]
        shown_figures[path.stem] = ShownFigure(
            path=path,
            link=f"figures/{path.stem}",
            question=(questions or {}).get(path.stem, figure.question),
            caption=figure.caption,
        )
    settings = PageSettings(
        about=description(about),
        tables={
            name: shown(path, DECLARED[name]) for name, path in tables.items() if name in DECLARED
        },
        figures=shown_figures,
        files={"For <papers>": ["tables/summary.tex"]},
        fits=[tables[name] for name in ("fit", "id_targets_fit") if name in tables],
        prepared={"A": manifest, "b": Path("was/not/pulled.json")},
        looks={},
        averages={},
        coefficients={},
        upstream=["was/not/pulled.json"],
        code="",
    )
    page_file = folder / "index.html"
    write_page(
        settings,
        citation=ROOT / "CITATION.cff",
        records=record_files,
        cells=None,
        page=page_file,
    )
    return page_file.read_text()


def text_between(start, end, text):
    """What stands between the first `start` of a text and the next `end`."""
    assert start in text
    _, _, after_start = text.partition(start)
    assert end in after_start
    between, _, _ = after_start.partition(end)
    return between


def section_of(page, question):
    """The section of a page that answers a question."""
    return text_between(f'id="q-{question}"', "</section>", page)


def beginning_of(page):
    """A page up to its figures and tables."""
    assert "<main>" in page
    beginning, _, _ = page.partition("<main>")
    return beginning


def test_the_page_escapes_names_and_needs_no_network(tmp_path, tables):
    # when
    page = page_of(tmp_path, tables, figures=[write_png(tmp_path / "radar.png")])
    # then names are escaped
    assert "Toys &amp; &lt;games&gt;" in page
    assert "<games>" not in page
    assert "For &lt;papers&gt;" in page
    assert 'href="tables/summary.tex"' in page
    # and figures are in the page
    assert 'src="data:image/webp;base64,' in page
    assert 'src="http' not in page
    assert "@import" not in page


def test_the_page_names_its_conditions_and_photos_that_cannot_be_decoded(tmp_path, tables):
    page = page_of(tmp_path, tables)
    assert "x/1.jpg" in page
    assert "Protocol paper; at most 9 images per dataset" in page


def test_the_page_says_which_size_its_figures_show_where_that_is_a_choice(tmp_path, tables):
    two_sizes = {**ABOUT, "sizes": ["5", "0.5"], "shown_size": "0.5"}
    page = page_of(tmp_path, tables)
    page_of_two_sizes = page_of(tmp_path, tables, about=two_sizes)
    assert "train_subset" not in section_of(page, "trust")
    assert "train_subset 0.5" in section_of(page_of_two_sizes, "trust")


def test_the_page_begins_with_what_is_underfitted(tmp_path, tables):
    beginning = beginning_of(page_of(tmp_path, tables))
    assert re.search(r"†.*Net, full fine-tuning on A", beginning)
    assert "95 %" in beginning


def test_the_page_marks_rates_that_were_not_chosen_for_the_network(tmp_path, tables):
    # given
    beginning_without = beginning_of(page_of(tmp_path, tables))
    write_table(tables["fit"], pd.read_csv(tables["fit"]).assign(other_rate="yes"))
    for name in ("mri", "ri"):
        write_table(tables[name], pd.read_csv(tables[name]).assign(other_rate=1))
    accuracy = pd.read_csv(tables["accuracy"])
    is_fine_tuned = accuracy["method"] != "pretrained"
    write_table(tables["accuracy"], accuracy.assign(other_rate=is_fine_tuned.astype(int)))
    # when
    beginning = beginning_of(page_of(tmp_path, tables))
    # then
    assert re.search(r"§.*Net, full fine-tuning", beginning)
    assert "§" not in beginning_without
    for name in ("mri", "ri", "accuracy"):
        assert cell_of(shown_table(tables[name]), 0, "Method").text == "full fine-tuning † §"
    assert cell_of(shown_table(tables["accuracy"]), 1, "Method").text == "pretrained"


def mark_as_finished(tables):
    """Write tables in which the training of the run is finished."""
    write_table(tables["fit"], pd.read_csv(tables["fit"]).assign(underfitted="no"))
    write_table(tables["mri"], pd.read_csv(tables["mri"]).assign(underfitted=0))


def test_the_page_says_which_threshold_finished_training_has_reached(tmp_path, tables):
    # given
    without_threshold = {**ABOUT, "fit_threshold": None}
    linear_probe = {**ABOUT["methods"]["ft"], "can_fit": False}
    without_a_method_that_can_fit = {**ABOUT, "methods": {"ft": linear_probe}}
    mark_as_finished(tables)
    # when
    page = page_of(tmp_path, tables)
    page_without_threshold = page_of(tmp_path, tables, about=without_threshold)
    page_without_such_a_method = page_of(tmp_path, tables, about=without_a_method_that_can_fit)
    # then
    assert "threshold of 95 %" in section_of(page, "trust")
    assert "underfitted" not in beginning_of(page)
    assert "No threshold" in section_of(page_without_threshold, "trust")
    assert "underfitted" not in beginning_of(page_without_threshold)
    assert "threshold" not in beginning_of(page_without_such_a_method)
    assert "threshold" not in section_of(page_without_such_a_method, "trust")


def test_the_page_says_what_happened_in_distribution_and_what_its_numbers_cannot_show(
    tmp_path, tables
):
    # given
    change = {"method": "ft", "change": -9, "ci_low": -10, "ci_high": -8}
    in_distribution = write_table(
        tmp_path / "in_distribution.csv",
        [
            {**change, "model": "net", "size": "all", "before": 90, "after": 81},
            {**change, "model": "net", "size": "5", "before": 90, "after": 1},
            {**change, "model": "other", "size": "all", "before": 70, "after": 65},
        ],
    )
    about = {
        **ABOUT,
        "models": {**ABOUT["models"], "other": {**ABOUT["models"]["net"], "label": "Other"}},
        "family": {**ABOUT["family"], "limits": "It shows nothing."},
    }
    # when
    page = page_of(tmp_path, {**tables, "in_distribution": in_distribution}, about=about)
    page_without = page_of(tmp_path, tables)
    # then
    page_in_one_line = " ".join(page.split())
    assert "It shows nothing." in page_in_one_line
    numbers = text_between('<table class="key">', "</table>", page)
    assert "Change in distribution" in numbers
    assert f"<td>{MINUS}9.0</td>" in numbers
    assert "Change in distribution" not in beginning_of(page_without)
    assert "It shows nothing" not in page_without


def test_a_page_without_fine_tuned_runs_says_nothing_of_fit(tmp_path, tables):
    for name in ("fit", "mri", "ri"):
        table_without_rows = pd.read_csv(tables[name]).iloc[:0]
        write_table(tables[name], table_without_rows)
    page = page_of(tmp_path, tables)
    assert "fit" not in text_between("</style>", "<main>", page)


def shown_titles(page):
    """Titles of the tables that a page shows."""
    return re.findall(r"<summary>Table: (.*?)</summary>", page)


IN_DISTRIBUTION_ALONE = {
    **ABOUT,
    "targets": [],
    "id_targets": ["train"],
    "read": {
        "train": {
            "label": "Train",
            "licence": "MIT",
            "origin": "here",
            "publishable": True,
            "tuning": None,
        }
    },
}


def test_a_table_without_rows_is_named_and_not_shown(tmp_path, tables):
    # given
    titles = shown_titles(page_of(tmp_path, tables))
    write_table(tables["mri"], pd.read_csv(tables["mri"]).iloc[:0])
    # when
    page = page_of(tmp_path, tables)
    page_in_distribution = page_of(tmp_path, tables, about=IN_DISTRIBUTION_ALONE)
    # then
    for page_without in (page, page_in_distribution):
        assert set(titles) - set(shown_titles(page_without)) == {DECLARED["mri"].title}
        assert DECLARED["mri"].title in beginning_of(page_without)
    # and if all targets are in distribution, that is the reason
    assert "in distribution" in beginning_of(page_in_distribution)
    assert "in distribution" not in beginning_of(page)


def test_underfitted_runs_on_targets_in_distribution_are_named_too(tmp_path, tables):
    fit = {**RUN, "target": "train", "fit": 80.0, "underfitted": "yes", "device": "cpu in fp32"}
    of_training_set = {**tables, "id_targets_fit": write_table(tmp_path / "id.csv", [fit])}
    write_table(tables["fit"], pd.read_csv(tables["fit"]).iloc[:0])
    page = page_of(tmp_path, of_training_set, about=IN_DISTRIBUTION_ALONE)
    assert re.search(r"†.*Net, full fine-tuning on Train", beginning_of(page))


def test_the_page_says_when_versions_differ(tmp_path, tables):
    # given
    records = [
        job_record(),
        job_record(versions={"torch": "2.7"}),
        job_record(commit=None),
    ]
    # when
    page = page_of(tmp_path, tables, records=records)
    # then
    assert "torch 2.6 (2 jobs)" in page
    assert "torch 2.7 (1 job)" in page


def test_a_figure_and_a_table_stand_below_their_question(tmp_path, tables):
    # given
    figure = write_png(tmp_path / "radar.png")
    # when
    page = page_of(tmp_path, tables, figures=[figure], questions={"radar": "why"})
    # then
    section_of_why = text_between('id="q-why"', "</section>", page)
    section_of_survived = text_between('id="q-survived"', "</section>", page)
    assert page.count('id="radar"') == 1
    assert 'id="radar"' in section_of_why
    assert section_of_survived.count("<table") == 3
    # and there are links to questions, but not to that about models, on which nothing is shown
    assert 'href="#q-why"' in page
    assert 'href="#q-model"' not in page


def test_rows_beyond_the_first_ones_are_data_of_a_script(tmp_path, tables):
    # given
    rows_of_ri = 1000
    page_of_one_row = page_of(tmp_path, tables)
    ri = pd.concat([pd.read_csv(tables["ri"])] * rows_of_ri, ignore_index=True)
    write_table(tables["ri"], ri.assign(seed=range(rows_of_ri)))
    # when
    page = page_of(tmp_path, tables)
    # then
    more_rows = page.count("<tr>") - page_of_one_row.count("<tr>")
    assert more_rows == MOST_ROWS - 1
    (data_of_script,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert len(json.loads(data_of_script)) == rows_of_ri - MOST_ROWS


class Tag(NamedTuple):
    """A tag of a page, as it starts."""

    name: str
    attributes: list[str]  # their names
    links: list[str]  # to pages and images


class TagReader(HTMLParser):
    """Reads the tags of a page."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        attributes = sorted(name for name, _ in attrs)
        links = [value for name, value in attrs if name in ("href", "src")]
        self.tags.append(Tag(tag, attributes, links))


def tags_of(page):
    """The tags of a page, of which there is at least one."""
    reader = TagReader()
    reader.feed(page)
    assert reader.tags
    return reader.tags


HOSTILE = {
    "script": "<script>x</script>",
    "attribute": '" onmouseover="x',
    "link": "javascript:x",
    "template": "{{ 7 * 7 }}{% raw %}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_texts_of_the_catalogue_make_no_tags_and_no_links(tmp_path, tables, text):
    # given
    usual_about = {**ABOUT, "family": {**ABOUT["family"], "limits": "none"}}
    hostile_about = copy.deepcopy(usual_about)
    hostile_about["family"] = dict.fromkeys(usual_about["family"], text)
    hostile_about["config"]["archives"] = [text]
    for kind in ("datasets", "models", "methods"):
        for entry in hostile_about[kind].values():
            for key in entry:
                if isinstance(entry[key], str):
                    entry[key] = text
    hostile_record = job_record(commit=text)
    # when
    usual_page = page_of(tmp_path, tables, about=usual_about)
    hostile_page = page_of(tmp_path, tables, records=[hostile_record], about=hostile_about)
    # then
    assert tags_of(hostile_page) == tags_of(usual_page)
    product_of_the_template = "49"
    assert product_of_the_template not in text_between("<title>", "</title>", hostile_page)


def test_the_page_begins_with_the_answer(tmp_path, tables):
    page = page_of(tmp_path, tables)
    beginning = beginning_of(page)
    assert "Full fine-tuning of Net" in beginning
    for number in (f"{MINUS}1.3", "50.0", "48.8"):
        assert number in beginning


def test_the_page_says_at_once_how_much_remains_without_shared_source_images(tmp_path, tables):
    # given
    usual_page = page_of(tmp_path, tables)
    row = {
        **{"model": "net", "method": "ft", "size": "all", "target": "mean"},
        **{"targets": 2, "sharing_targets": 1, "ri": -1.25, "ci_low": -2.0, "ci_high": 0.04},
        **{"leak_free": -9.0, "leak_free_low": -9.5, "leak_free_high": -8.5},
    }
    leak_free = write_table(tmp_path / "leak_free.csv", [row])
    # when
    page = page_of(tmp_path, {**tables, "leak_free": leak_free})
    table = shown_table(leak_free)
    # then
    assert f"<td>{MINUS}9.0</td>" in text_between('<table class="key">', "</table>", page)
    assert "1 of 2 targets" in beginning_of(page)
    assert cell_of(table, 0, "Leak-free") == (f"{MINUS}9.0", -9.0)
    assert "1 of 2 targets" not in usual_page


def test_who_cites_is_told_a_commit_only_if_there_is_one(tmp_path, tables):
    page = page_of(tmp_path, tables, records=[job_record(commit="0a1b2c")])
    page_without_commit = page_of(tmp_path, tables, records=[job_record(commit=None)])
    citation = text_between('id="cite"', "</p>", page)
    citation_without_commit = text_between('id="cite"', "</p>", page_without_commit)
    assert "0a1b2c" in citation
    assert "commit" not in citation_without_commit
