import pandas as pd

from rib.figures import write_figure
from rib.figures.before_after import before_after

TABLE = pd.DataFrame(
    [
        ("m1", "ft", "before", 20.0, 15.0, 26.0),
        ("m1", "ft", "after", 30.0, 28.0, 33.0),
        ("m2", "ft", "before", 40.0, 35.0, 46.0),
        ("m2", "ft", "after", 10.0, 8.0, 13.0),
        ("m1", "lwf", "after", 99.0, 99.0, 99.0),
    ],
    columns=["model", "method", "when", "accuracy", "ci_low", "ci_high"],
)
SETTINGS = {
    "method": "ft",
    "method_label": "FT",
    "labels": {"m2": "Second", "m1": "First"},
    "datasets": 8,
    "targets": 5,
    "confidence": 0.95,
}


def test_bars_and_whiskers_are_the_tables_numbers():
    figure, shown = before_after(TABLE, **SETTINGS)
    (axes,) = figure.axes
    assert [round(bar.get_height(), 6) for bar in axes.patches] == [40, 20, 10, 30]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Second", "First"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["before (pretrained)", "after FT"]
    ends = [tuple(segment[:, 1]) for lines in axes.collections for segment in lines.get_segments()]
    assert ends == [(35, 46), (15, 26), (8, 13), (28, 33)]
    assert set(shown["method"]) == {"ft"} and len(shown) == 4


def test_the_same_table_gives_the_same_files(tmp_path):
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    made = []
    for name in ("a", "b"):
        paths = {ending: tmp_path / f"{name}.{ending}" for ending in ("png", "pdf", "csv")}
        write_figure(before_after, tmp_path / "t.csv", SETTINGS, **paths)
        made.append([path.read_bytes() for path in paths.values()])
    assert made[0] == made[1]
