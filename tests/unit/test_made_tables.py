"""Tables of analyses as their jobs write them."""

import math
import sys
from types import ModuleType

import pandas as pd

from rib.analyses import learning_rates
from rib.statistics.inputs import Inputs
from rib.statistics.writing import make_tables
from tiny.tables.rows import write_rows


def test_a_job_writes_tables_with_the_fit_of_their_runs_and_texts_as_they_are(
    tmp_path, monkeypatch
):
    # given an analysis with two tables of a run, of which one gets no fit, and a text
    rows = pd.DataFrame({"model": ["m"], "method": ["ft"], "x": [0.5]})
    analysis = ModuleType("some_analysis")
    analysis.tables = lambda inputs: {"one": rows, "other": rows, "note.md": inputs.params["note"]}
    monkeypatch.setitem(sys.modules, "some_analysis", analysis)
    fit = "model,method,target,size,seed,fit,underfitted\nm,ft,t,all,0,90.0,yes\n"
    (tmp_path / "fit.csv").write_text(fit)
    inputs = Inputs({"fit": str(tmp_path / "fit.csv")}, {"note": "N"})
    # when
    outputs = {name: tmp_path / name for name in ("one.csv", "other.csv", "note.md")}
    make_tables("some_analysis", inputs, outputs, "c", without_fit=["other"])
    # then
    assert outputs["one.csv"].read_text() == (
        "model,method,x,conditions,fit,underfitted\nm,ft,0.500000,c,90.000000,1\n"
    )
    assert outputs["other.csv"].read_text() == "model,method,x,conditions\nm,ft,0.500000,c\n"
    assert outputs["note.md"].read_text() == "N"


def test_rates_chosen_on_select_splits_are_printed_as_the_familys_file_takes_them(
    tmp_path, capsys, caplog
):
    # given two rates, both of which get all images right
    manifests, rows = [], []
    for variant in ("ft-lr1", "ft-lr2"):
        run = {"model": "m", "method": variant, "target": "a", "size": "all", "seed": 0}
        images = {"alpha": math.nan, "dataset": "a", "row": range(2), "rank": [0, 0]}
        rows.extend(write_rows(tmp_path / "select", pd.DataFrame({**run, **images})))
        manifest = tmp_path / f"finetune/m/a/{variant}/all/0/manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text('{"fit": 1.0}')
        manifests.append(str(manifest))
    index = tmp_path / "prepare/a/32px/index.parquet"
    index.parent.mkdir(parents=True)
    pd.DataFrame({"object_id": ["x", "y"], "label": 0}).to_parquet(index)
    swept = {"method": "ft", "entry": "ft", "recipe": "sgd", "can_fit": True}
    params = {
        "swept_methods": {f"ft-lr{rate}": {**swept, "lr": {"m": rate}} for rate in (1, 2)},
        "threshold": 0.95,
        "methods": ["ft-lr1", "ft-lr2"],
        "family": "fashion",
        "targets": ["a"],
        "seeds": [0],
    }
    files = {
        "manifests_of_runs": manifests,
        "rows": list(map(str, rows)),
        "indexes": [str(index)],
    }
    # when
    made = learning_rates.tables(Inputs(files, params))
    # then the smaller is chosen, at the edge of what was tried
    assert made["learning_rates"]["chosen"].tolist() == ["yes", "no"]
    recipes = made["learning_rates.yaml"]
    assert recipes.endswith("recipes:\n  sgd:\n    ft:\n      lr: {m: 1}\n")
    assert capsys.readouterr().out == recipes
    assert "the chosen learning rate 1 is the smallest that was tried" in caplog.text
