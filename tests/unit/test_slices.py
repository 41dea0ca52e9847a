"""Accuracy by slices against pandas, from rows made up."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rib.analysis.slices import write_slices
from rib.base.errors import UserError

RUNS = [("m", "none", "pretrained"), ("m", "a", "ft"), ("k", "none", "pretrained"), ("k", "a", "ft")]
SETS = {"a": 30, "c": 40, "plain": 10}  # images in the index, of which every fifth is not scored


@pytest.fixture
def grid(tmp_path):
    """Files of rows and indexes, and all rows with what the indexes say of them."""
    rng = np.random.default_rng(0)
    indexes, rows, parts = {}, [], []
    for name, n in SETS.items():
        table = {"row": range(n), "label": [0] * n, "object_id": [str(i) for i in range(n)]}
        if name != "plain":
            table["severity"] = rng.integers(1, 4, n)
            table["corruption"] = pa.array(rng.choice(["snow", "fog"], n)).dictionary_encode()
        if name == "c":
            table["time"] = ["day"] * n
        path = tmp_path / f"prepare/{name}/32px/index.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(table), path)
        indexes[name] = path
    for model, target, method in RUNS:
        for group in (["a", "plain"], ["c"]):
            place = tmp_path / f"{model}/{target}/{method}/all/0/{group[0]}.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            scored = []
            for name in group:
                row = np.flatnonzero(np.arange(SETS[name]) % 5)
                scored.append(pd.DataFrame({"dataset": name, "row": row, "rank": rng.integers(0, 2, len(row))}))
                index = pd.read_parquet(indexes[name])
                run = {"model": model, "target": target, "method": method}
                parts.append(scored[-1].merge(index, on="row").assign(**run))
            pd.concat(scored).to_parquet(place)
            rows.append(place)
    return rows, list(indexes.values()), pd.concat(parts)


def written(grid, tmp_path, *slices):
    rows, indexes, *_ = grid
    table = tmp_path / "slices.csv"
    write_slices(rows=rows, indexes=indexes, slices=slices, conditions="protocol paper", table=table)
    return pd.read_csv(table)


def test_accuracies_of_slices_are_pandas(grid, tmp_path):
    table = written(grid, tmp_path, "severity", "time", "corruption")
    keys = ["model", "method", "target", "size", "seed", "dataset", "slice", "value"]
    assert list(table) == [*keys, "n", "before", "after", "change", "conditions"]
    values = {"a": [*"123", "fog", "snow"], "c": [*"123", "day", "fog", "snow"]}
    for (model, dataset), part in table.groupby(["model", "dataset"]):
        assert sorted(part["value"].astype(str)) == values[dataset] and set(part["method"]) == {"ft"}
        for line in part.itertuples():
            own = grid[2][(grid[2]["model"] == model) & (grid[2]["dataset"] == dataset)]
            own = own[own[line.slice].astype(str).str.removesuffix(".0") == line.value]
            own = own.assign(right=100 * (own["rank"] == 0))
            before, after = (own[own["method"] == method]["right"] for method in ("pretrained", "ft"))
            assert line.n == len(before) == len(after)
            assert (line.before, line.after) == pytest.approx((before.mean(), after.mean()), abs=1e-5)
            assert line.change == pytest.approx(after.mean() - before.mean(), abs=2e-6)


def test_without_a_choice_all_columns_that_there_are_count(grid, tmp_path):
    assert set(written(grid, tmp_path)["slice"]) == {"corruption", "severity", "time"}
    plain = [path for path in grid[1] if "plain" in path.parts]
    assert written((grid[0], plain), tmp_path).empty
    with pytest.raises(UserError, match="plain have no column 'severity'; no layout gives slices"):
        written((grid[0], plain), tmp_path, "severity")


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (["severity", "colour"], "the indexes of a, c, plain have no column 'colour'; .* corruption, severity, time"),
        (["label"], "no column 'label'"),
    ],
)
def test_a_column_that_no_index_has_is_refused(grid, tmp_path, slices, message):
    with pytest.raises(UserError, match=message):
        written(grid, tmp_path, *slices)
    assert not (tmp_path / "slices.csv").exists()


def test_runs_on_different_images_are_refused(grid, tmp_path):
    path = grid[0][-1]
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    message = "k/none/pretrained/all/0 and k/a/ft/all/0 were scored on different images of c; delete"
    with pytest.raises(UserError, match=message):
        written(grid, tmp_path, "severity")
