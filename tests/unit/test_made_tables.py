"""Tables of analyses as their jobs write them."""

import sys
from types import ModuleType

import pandas as pd

from rib.statistics.inputs import Inputs
from rib.statistics.writing import make_tables


def test_a_job_writes_tables_with_the_fit_of_their_runs_and_texts_as_they_are(
    tmp_path, monkeypatch
):
    # given an analysis with two tables of a run, of which one gets no fit, and a text
    rows = pd.DataFrame({"model": ["m"], "method": ["ft"], "x": [0.5]})
    analysis = ModuleType("some_analysis")
    analysis.tables = lambda inputs: {"one": rows, "other": rows, "note.md": inputs.params["note"]}
    monkeypatch.setitem(sys.modules, "rib.analyses.some_analysis.tables", analysis)
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
