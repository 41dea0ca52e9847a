import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from rib.base.plugins import LIBRARY
from rib.base.progress import duration
from rib.records import provenance
from rib.reporting.page import (
    MOST_ROWS,
    PageInputs,
    page_tables,
    run_facts,
    with_choices,
    write_page,
)
from rib.reporting.settings import PageSettings
from tiny.analyses import DESCRIPTIONS, caption_of
from tiny.descriptions import description
from tiny.project import ROOT

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
        name: {"label": name.upper(), "licence": "MIT", "origin": "here"} for name in "ab"
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


def record(rule="finetune", started="2026-01-01T10:00:00+00:00", seconds=60.0, **more):
    machine = {"processor": "P", "system": "S", "python": "3.11"}
    facts = {"commit": "abc", "versions": {"torch": "2.6"}, "machine": machine}
    own = {"log": "l", "cfg": {}, "inputs": {}, "outputs": {}, "sizes": {}, "ended": started}
    own |= {"cpu_seconds": 1.0, "peak_memory": 10**6}
    return {"rule": rule, "started": started, "seconds": seconds, **own, **facts, **more}


@pytest.fixture
def tables(tmp_path):
    run = {"model": "net", "method": "ft", "target": "a", "size": "all", "seed": 0}
    before = {**run, "method": "pretrained", "target": "none"}
    interval = {"ci_low": -2.0, "ci_high": 0.04, "fit": 80.0, "unfinished": 1}
    finished = {"fit": None, "unfinished": 0}
    covered = {"ri_seen": 3.0, "seen_low": 1.0, "seen_high": 4.0, "n_seen": 2400.0}
    covered |= dict.fromkeys(("ri_unseen", "unseen_low", "unseen_high", "n_unseen"))
    mri = {"mri": -1.25, **interval, "ood_before": 50.0, "ood_after": 48.75}
    mri |= {
        "on_target": 90.0,
        "on_target_low": 88.0,
        "on_target_high": 91.0,
        "on_target_before": 40.0,
    }
    mri |= {"seed_sd": None, "seed_low": None, "seed_high": None}
    mri |= {"seeds": 1, "targets": 2, "target_sd": 3.0, "target_low": -28.0, "target_high": 26.0}
    rows = {
        "mri": [{"model": "net", "method": "ft", "size": "all", **mri}],
        "ri": [{**run, "n": 2400, "ri": -0.04, **interval, **covered}],
        "accuracy": [
            {**which, "dataset": name, "n": 1200, "correct": 600, "accuracy": 50.0, **fit}
            for which, fit in ((before, finished), (run, {"fit": 80.0, "unfinished": 1}))
            for name in "ab"
        ],
        "fit": [{**run, "fit": 80.0, "unfinished": "yes"}],
    }
    for name, lines in rows.items():
        pd.DataFrame(lines).to_csv(tmp_path / f"{name}.csv", index=False)
    return {name: tmp_path / f"{name}.csv" for name in rows}


def test_tables_have_labels_signs_and_values_to_sort_by(tables):
    mri, ri, accuracy = page_tables(
        {name: tables[name] for name in ("mri", "ri", "accuracy")}, DESCRIPTIONS, description(ABOUT)
    )
    minus = "\N{MINUS SIGN}"
    assert mri.rows[0][:4] == [
        ("Net", "Net"),
        ("full fine-tuning †", "full fine-tuning †"),
        (f"{minus}1.3", -1.25),
        (f"{minus}2.0 to +0.0", -2.0),
    ]
    assert ri.rows[0][3] == ("+0.0", -0.04)
    assert accuracy.header[3:] == ["A", "B", "Fit (%)"] and accuracy.rows[0][3:] == [
        ("50.0", 50.0)
    ] * 2 + [("80.0", 80.0)]
    assert accuracy.rows[1][1][0] == "pretrained" and accuracy.rows[1][-1][0] == "\N{EN DASH}"
    assert mri.header[-1] == ri.header[-1] == "Fit (%)" and ri.rows[0][-1] == (
        "80.0",
        80.0,
    )
    assert ri.header[6:] == ["Fit (%)"], "there are no other classes"


def test_columns_that_say_nothing_are_left_out(tables):
    """Size and seed where there is one, a spread over one seed, and RI of all classes once more."""

    def header(name, about=ABOUT):
        (table,) = page_tables({name: tables[name]}, DESCRIPTIONS, description(about))
        assert all(len(row) == len(table.header) for row in table.rows)
        return table.header

    several = {**ABOUT, "sizes": ["all", "5"], "config": {**ABOUT["config"], "seeds": [0, 1]}}
    assert {"Size", "Seed"}.isdisjoint(header("ri")) and {"Size", "Seed"} <= set(
        header("ri", several)
    )
    assert "SD over seeds (pp)" not in header("mri", several)
    assert "Classes of the target" not in header("ri")
    read = pd.read_csv(tables["ri"])
    read.assign(ri_unseen=1.0, n_unseen=7).to_csv(tables["ri"], index=False)
    shown = header("ri")
    assert shown[6:9] == [
        "Classes of the target",
        "95 % confidence interval",
        "Images of the target's classes",
    ]
    assert shown[9:] == ["Other classes", "Images of other classes", "Fit (%)"]


def test_models_of_one_label_keep_rows_of_their_own(tables):
    read = pd.read_csv(tables["accuracy"])
    pd.concat([read, read.assign(model="twin", accuracy=90.0)]).to_csv(tables["accuracy"])
    about = {**ABOUT, "models": {**ABOUT["models"], "twin": ABOUT["models"]["net"]}}
    (table,) = page_tables({"accuracy": tables["accuracy"]}, DESCRIPTIONS, description(about))
    assert sorted(row[3][1] for row in table.rows) == [50.0, 50.0, 90.0, 90.0]


def test_a_mixture_names_libraries_and_rules():
    versions = {"torch": "2.6", "numpy": "2.0"}
    made = [record(rule=rule, versions=versions) for rule in ("prepare", "finetune", "evaluate")]
    made += [record(rule="evaluate", versions={**versions, "torch": "2.7"})] * 2
    assert run_facts(made).mixed == ["torch 2.6 (prepare, finetune, evaluate), 2.7 (evaluate)"]
    other = {**record()["machine"], "processor": "another"}
    (mixed,) = run_facts([record(), record(rule="evaluate", machine=other)]).mixed
    assert mixed.startswith("processor ") and "another (evaluate)" in mixed
    lacking = [record(versions={"torch": "2.6"}), record(versions={"pandas": "3"})]
    assert not run_facts(lacking).mixed, "a stage that lacks a library is no mixture"


def test_accepted_jobs_are_counted():
    assert run_facts([record(), record(accepted=[{"from": "a"}])]).accepted == 1


def test_busy_time_counts_overlaps_once_and_pauses_not_at_all():
    def minutes(start, seconds):
        return record(started=f"2026-01-01T10:{start:02d}:00+00:00", seconds=seconds)

    facts = run_facts([minutes(0, 120.0), minutes(1, 120.0), minutes(1, 30.0), minutes(30, 60.0)])
    assert facts.busy == 180 + 60 and facts.seconds == 330 and facts.jobs == 4
    (row,) = facts.stage_rows
    times = [("5 min 30 s", 330), ("2 min 00 s", 120), ("4.0 s", 4)]
    assert row == [("finetune", "finetune"), ("4", 4), *times, ("1.00MB", 10**6), ("0.00B", 0)]
    assert facts.started.startswith("2026-01-01 10:00") and facts.ended.startswith(
        "2026-01-01 10:31"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(3.21, "3.2 s"), (60, "1 min 00 s"), (248.4, "4 min 08 s"), (7500, "2 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds, shown):
    assert duration(seconds) == shown


def page(tmp_path, tables, records, figures, about=ABOUT, questions=None):
    paths = []
    for number, content in enumerate(records):
        paths.append(tmp_path / f"{number}.json")
        provenance.write(paths[-1], content)
    (tmp_path / "manifest.json").write_text('{"corrupt": ["x/1.jpg"]}')
    analyses = {name: path for name, path in tables.items() if name == "in_distribution"}
    inputs = PageInputs(
        **{name: path for name, path in tables.items() if name not in analyses},
        analyses=analyses,
        columns=DESCRIPTIONS,
        figures=figures,
        captions=[caption_of(path.stem) for path in figures],
        citation=ROOT / "CITATION.cff",
        records=[*map(str, paths), "was/not/pulled.json"],
    )
    settings = PageSettings(
        about=description(about),
        analyses=list(analyses),
        more_files={"For <papers>": ["summary.tex"]},
        prepared={"A": tmp_path / "manifest.json", "b": Path("was/not/pulled.json")},
        questions=questions or {},
        colours={},
        averages={},
        upstream=[],
        published=[],
        code="",
    )
    write_page(inputs, settings, tmp_path / "index.html")
    return (tmp_path / "index.html").read_text()


def test_the_page_escapes_names_and_needs_no_network(tmp_path, tables):
    Image.new("RGB", (20, 10)).save(tmp_path / "radar.png")
    text = page(tmp_path, tables, [record()], [tmp_path / "radar.png"])
    assert "Toys &amp; &lt;games&gt;" in text and "<games>" not in text
    assert 'For &lt;papers&gt;: <a href="tables/summary.tex">summary.tex</a>' in text
    assert (
        'src="data:image/webp;base64,' in text and 'src="http' not in text and "@import" not in text
    )
    assert "Accuracy on each dataset before" in text and "max-width: 12px" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert citation["title"] in text.replace("&#39;", "'")
    assert "different library versions" not in text
    assert "x/1.jpg" in text and "1 image " in text
    assert text.count("Protocol paper; at most 9 images per dataset.") == 3


def test_the_page_says_which_size_its_figures_show_where_that_is_a_choice(tmp_path, tables):
    assert "train_subset" not in page(tmp_path, tables, [record()], []).split("<main>")[0]
    about = {**ABOUT, "sizes": ["5", "0.5"], "shown_size": "0.5"}
    assert "train_subset 0.5" in page(tmp_path, tables, [record()], [], about).split("<main>")[0]


def test_the_page_begins_with_what_is_unfinished(tmp_path, tables):
    def said(about):
        return page(tmp_path, tables, [record()], [], about).split("<main>")[0]

    assert "Training is unfinished (†) in: Net, full fine-tuning on A." in said(
        ABOUT
    ) and "below 95 %" in said(ABOUT)
    tables["fit"].write_text(tables["fit"].read_text().replace("yes", "no"))
    pd.read_csv(tables["mri"]).assign(unfinished=0).to_csv(tables["mri"], index=False)
    assert "reached the threshold of 95 %" in said(ABOUT) and "unfinished" not in said(ABOUT)
    about = {**ABOUT, "fit_threshold": None}
    assert "No threshold of <a" in said(about) and "unfinished" not in said(about)
    methods = {"ft": {**ABOUT["methods"]["ft"], "can_fit": False}}
    assert "threshold" not in said({**ABOUT, "methods": methods})


def test_the_page_says_what_happened_in_distribution_and_what_its_numbers_cannot_show(
    tmp_path, tables
):
    lines = [
        {
            "model": model,
            "method": "ft",
            "size": size,
            "change": -9,
            "ci_low": -10,
            "ci_high": -8,
            "before": b,
            "after": a,
        }
        for model, size, b, a in [
            ("net", "all", 90, 81),
            ("net", "5", 90, 1),
            ("other", "all", 70, 65),
        ]
    ]
    pd.DataFrame(lines).to_csv(tmp_path / "in_distribution.csv", index=False)
    own = {**ABOUT["models"], "other": {**ABOUT["models"]["net"], "label": "Other"}}
    about = {**ABOUT, "models": own, "family": {**ABOUT["family"], "limits": "It shows nothing."}}
    text = " ".join(
        page(
            tmp_path,
            {**tables, "in_distribution": tmp_path / "in_distribution.csv"},
            [record()],
            [],
            about,
        ).split()
    )
    assert (
        "full fine-tuning: 70.0 to 90.0 % before, 65.0 to 81.0 % after." in text
        and "It shows nothing." in text
    )
    without = page(tmp_path, tables, [record()], [])
    assert "Accuracy in distribution" not in without and "It shows nothing" not in without


def test_a_page_without_fine_tuned_runs_says_nothing_of_fit(tmp_path, tables):
    for name in ("fit", "mri", "ri"):
        tables[name].write_text(tables[name].read_text().splitlines()[0] + "\n")
    assert (
        "fit" not in page(tmp_path, tables, [record()], []).split("<main>")[0].split("</style>")[1]
    )


def test_the_page_has_the_counts_of_a_split(tmp_path):
    """Of every dataset, those that train, select and test."""
    (tmp_path / "splits.csv").write_text(
        "dataset,train,select,test,conditions\na,30,10,11,x\nb,6,2,2,x\n"
    )
    (table,) = page_tables({"splits": tmp_path / "splits.csv"}, DESCRIPTIONS, description(ABOUT))
    assert table.header == ["Dataset", "Training", "Selection", "Test"]
    assert [[text for text, _ in row] for row in table.rows] == [
        ["A", "30", "10", "11"],
        ["B", "6", "2", "2"],
    ]


def test_the_page_says_when_versions_differ_and_when_there_is_no_figure(tmp_path, tables):
    text = page(
        tmp_path, tables, [record(), record(versions={"torch": "2.7"}), record(commit=None)], []
    )
    assert all(
        said in text
        for said in ("different library versions", "torch 2.6 (2 jobs)", "torch 2.7 (1 job)")
    )
    assert "not run from a git checkout (1 job)" in text and "nothing to compare" in text


def test_a_figure_and_a_table_stand_below_their_question(tmp_path, tables):
    Image.new("RGB", (20, 10)).save(tmp_path / "radar.png")
    text = page(tmp_path, tables, [record()], [tmp_path / "radar.png"], questions={"radar": "why"})
    section = text.split('id="q-why"')[1].split("</section>")[0]
    assert 'id="radar"' in section and text.count('id="radar"') == 1
    assert text.split('id="q-survived"')[1].split("</section>")[0].count("<summary>Table: ") == 3
    assert 'href="#q-why"' in text and 'href="#q-model"' not in text, (
        "no figure or table is about models"
    )


def test_rows_beyond_the_first_ones_are_data_of_a_script(tmp_path, tables):
    short = page(tmp_path, tables, [record()], [])
    many = pd.concat([pd.read_csv(tables["ri"])] * 1000, ignore_index=True)
    many.assign(seed=range(1000)).to_csv(tables["ri"], index=False)
    text = page(tmp_path, tables, [record()], [])
    assert text.count("<tr>") - short.count("<tr>") == MOST_ROWS - 1
    (more,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert len(json.loads(more)) == 1000 - MOST_ROWS


def test_every_figure_has_a_caption():
    figures = [
        path for path in LIBRARY.glob("analyses/*/*.py") if "\ndef draw(" in path.read_text()
    ]
    assert figures
    for figure in figures:
        assert len(figure.with_suffix(".rst").read_text()) > 100, figure


def test_costs_of_a_rule_add_up_and_its_largest_job_is_shown():
    costs = [(50.0, 10**9, 10**6), (10.0, 2 * 10**9, 1)]
    records = [
        record(cpu_seconds=time, peak_memory=memory, sizes={"x": size - 1, "y": 1})
        for time, memory, size in costs
    ]
    (row,) = run_facts(records).stage_rows
    assert row[4:] == [("1 min 00 s", 60), ("2.00GB", 2 * 10**9), ("1.00MB", 10**6 + 1)]


def shown_table(folder, csv, columns):
    (folder / "x.csv").write_text(csv)
    (folder / "columns.yaml").write_text(
        f"x: {{title: X, question: why, note: N, columns: {columns}}}"
    )
    (table,) = page_tables({"x": folder / "x.csv"}, [folder / "columns.yaml"], description(ABOUT))
    return table


def test_the_note_of_a_comparison_of_few_objects_says_so(tmp_path):
    noted = shown_table(tmp_path, "p,objects\n0.1,120\n0.2,40\n", "{P: p}").note
    assert noted == "N Fewer than 100 objects (40): the test finds differences too often."
    assert shown_table(tmp_path, "p,objects\n0.1,120\n0.2,100\n", "{P: p}").note == "N"


def test_an_analysis_table_is_shown_as_its_columns_say(tmp_path):
    csv = "method,n,d,low,high,p\nft,3,-1.25,-2,0.04,0.01234\nft,4,,,,0.5\n"
    change = "{value: d, form: signed, interval: [low, high]}"
    table = shown_table(
        tmp_path, csv, f"{{Method: method, Images: n, Change: {change}, P: {{value: p, form: p}}}}"
    )
    assert table.header == ["Method", "Images", "Change", "95 % confidence interval", "P"]
    assert [[shown for shown, _ in row] for row in table.rows] == [
        ["full fine-tuning", "3", "\N{MINUS SIGN}1.3", "\N{MINUS SIGN}2.0 to +0.0", "0.012"],
        ["full fine-tuning", "4", "\N{EN DASH}", "\N{EN DASH}", "0.5"],
    ]


def test_counts_beside_missing_values_have_no_decimals(tmp_path):
    table = shown_table(
        tmp_path,
        "epoch,n\n0,5000\n,\n",
        "{Epoch: {value: epoch, form: count}, Images: {value: n, form: count}}",
    )
    assert [[shown for shown, _ in row] for row in table.rows] == [
        ["0", "5,000"],
        ["\N{EN DASH}"] * 2,
    ]


def test_a_number_without_an_interval_and_labels_of_pairs(tmp_path):
    columns = "{First: first, Second: second, R: {value: r, form: decimals, interval: [low, high]}}"
    rows = "a,other,-0.12345,,\na,other,0.5,0.4,0.6\n"
    table = shown_table(tmp_path, f"first,second,r,low,high\n{rows}", columns)
    assert [shown for shown, _ in table.rows[0]] == [
        "A",
        "other",
        "\N{MINUS SIGN}0.123",
        "\N{EN DASH}",
    ]


class Tags(HTMLParser):
    """Tags of a page with the names of their attributes, and its links."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        links = [value for name, value in attrs if name in ("href", "src")]
        self.found.append((tag, sorted(name for name, _ in attrs), links))


HOSTILE = {
    "script": "<script>x</script>",
    "attribute": '" onmouseover="x',
    "quoted attribute": "' onclick='x",
    "link": "javascript:x",
    "template": "{{ 7 * 7 }}{% raw %}",
    "end tags": "</pre></p></main><a href=javascript:x>",
}


@pytest.mark.attack("text")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_texts_of_the_catalogue_make_no_tags_and_no_links(tmp_path, tables, text):
    usual = {**ABOUT, "family": {**ABOUT["family"], "limits": "none"}}
    about = copy.deepcopy(usual)
    about["family"] = dict.fromkeys(about["family"], text)
    about["config"]["archives"] = [text]
    for kind in ("datasets", "models", "methods"):
        for entry in about[kind].values():
            entry.update({key: text for key, value in entry.items() if isinstance(value, str)})
    made = page(tmp_path, tables, [record(commit=text)], [], about)
    assert Tags(made).found == Tags(page(tmp_path, tables, [record()], [], usual)).found
    assert "49" not in made.split("<title>")[1].split("</title>")[0]


def test_means_are_of_chosen_variants_not_of_the_best_of_all(tmp_path):
    """Given two variants of which the worse one was chosen on held-out images."""
    about = {
        **ABOUT,
        "sweeps": {"ft": {"label": "full fine-tuning", "variants": ["ft-lr1", "ft-lr2"]}},
    }
    about["config"] = {**ABOUT["config"], "select": "target"}
    row = {"model": "net", "size": "all", "unfinished": 0, "ci_low": -1.0, "ci_high": 9.0}
    means = pd.DataFrame(
        [{**row, "method": name, "mri": mri} for name, mri in (("ft-lr1", 2.0), ("ft-lr2", 8.0))]
    )
    chosen = {
        "model": "net",
        "method": "ft",
        "size": "all",
        "target": "mean",
        "ri": 2.0,
        "ci_low": 1.0,
        "ci_high": 3.0,
    }
    pd.DataFrame([{**chosen, "target": "a", "ri": 5.0}, chosen]).to_csv(
        tmp_path / "selection.csv", index=False
    )

    def changes():
        table = with_choices(means, tmp_path / "selection.csv", description(about))
        return table.set_index("method")["mri"].to_dict()

    assert changes() == {"ft": 2.0}
    about["config"]["select"] = "oracle"
    assert changes() == {"ft-lr1": 2.0, "ft-lr2": 8.0}, "an upper bound is no result"


def test_the_page_begins_with_the_answer(tmp_path, tables):
    text = page(tmp_path, tables, [record()], []).split("<main>")[0]
    minus = "\N{MINUS SIGN}"
    assert (
        "Full fine-tuning changed mean accuracy on the out-of-distribution datasets other than the "
        f"target by {minus}1.3 [{minus}2.0, +0.0] percentage points; its training is unfinished."
    ) in text
    assert "from 40.0 to 90.0 % [88.0, 91.0]; its images include those trained on" in text
    assert "In brackets: 95 % confidence intervals" in text


def test_who_cites_is_told_a_commit_only_if_there_is_one(tmp_path, tables):
    def cite(commit):
        text = page(tmp_path, tables, [record(commit=commit)], [])
        return text.split('id="cite"')[1]

    assert "with the commit 0a1b2c" in cite("0a1b2c")
    assert "commit" not in cite(None).split("</p>")[0] and "its version" in cite(None)


def test_cost_of_one_mri_is_that_of_its_table_alone(tmp_path, tables):
    assert "Cost per mRI" not in page(tmp_path, tables, [record()], [])
