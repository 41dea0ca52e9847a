"""What `make same-results` says of two folders in neutral form."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from same_results import compare, form
from same_results.compare import Difference, Explanation, differences, unexplained

RUN = "net/red/ft/all/0"
TABLE = pd.DataFrame(
    {"model": ["net", "net"], "method": ["ft", "lwf"], "mri": ["1.5", "2.5"], "letters": ["a", ""]}
)


def rows_of_run(**columns):
    """Rows of one run on three images, with other columns than usual."""
    rows = {
        "run": RUN,
        "dataset": "red",
        "image": ["1", "2", "3"],
        "answer": ["ant", "bee", "cat"],
        "prediction": ["ant", "cat", "cat"],
        "confidence": np.array([0.5, 0.25, 0.125], np.float32),
    }
    return pd.DataFrame({**rows, **columns})


@pytest.fixture
def written(tmp_path):
    """Writes a folder in neutral form with one grid, `tiny`."""

    def write(name, rows=None, tensors=None, tables=None):
        grid = tmp_path / name / "tiny"
        form.write_rows(grid, rows_of_run() if rows is None else rows)
        form.write_tables(grid, {"mri": TABLE} if tables is None else tables)
        form.write_network(grid, RUN, tensors or {"head": torch.ones(2, 2)})
        return tmp_path / name

    return write


@pytest.fixture
def found(written):
    """The differences between a folder as usual and one with something else."""

    def find(**parts):
        return [str(line) for line in differences(written("before"), written("after", **parts))]

    return find


def test_the_order_of_lines_is_no_difference(found):
    assert found(rows=rows_of_run()[::-1], tables={"mri": TABLE[::-1]}) == []


def test_missing_numbers_are_the_same(written):
    tensors = {"head": torch.tensor([torch.nan, 1.0])}
    rows = rows_of_run(confidence=np.float32([np.nan, 1, 1]))
    before = written("before", rows=rows, tensors=tensors)
    after = written("after", rows=rows, tensors=tensors)
    assert list(differences(before, after)) == []


def test_a_dropped_image_is_gone(found):
    (line,) = found(rows=rows_of_run()[1:])
    assert re.match(rf"gone +tiny/rows/{RUN}/red: 1 of 3 images", line)


def test_another_prediction_confidence_and_answer_have_moved(found):
    (line,) = found(
        rows=rows_of_run(
            answer=["ant", "bee", "bee"],
            prediction=["ant", "ant", "ant"],
            confidence=np.float32([0.5, 0.75, 0.125]),
        )
    )
    parts = "of 3 images 1 .* answer, 2 .* prediction, 1 .* confidence .*0.5"
    assert re.match(rf"moved +tiny/rows/{RUN}/red: {parts}", line)


def test_another_tensor_has_moved_and_a_missing_one_is_gone(found):
    (moved,) = found(tensors={"head": torch.tensor([[1.0, 1.0], [1.0, 1.5]])})
    assert re.match(rf"moved +tiny/networks/{RUN}: 1 of 1 tensors.* 0.5", moved)
    gone, new = found(tensors={"body": torch.ones(2, 2)})
    assert re.match(rf"gone +tiny/networks/{RUN}: 1 tensors.* head", gone)
    assert re.match(rf"new +tiny/networks/{RUN}: 1 tensors.* body", new)


@pytest.mark.parametrize("tensor", [torch.ones(2, 2).double(), torch.ones(4)])
def test_another_type_or_shape_has_moved(found, tensor):
    (line,) = found(tensors={"head": tensor})
    assert re.match(rf"moved +tiny/networks/{RUN}: 1 of 1 tensors", line)


def test_another_number_of_a_table_has_moved(found):
    (line,) = found(tables={"mri": TABLE.assign(mri=["1.5", "2.25"])})
    parts = "1 of 2 values, .*0.25, .*'2.5' to '2.25' of model=net,method=lwf"
    assert re.match(f"moved +tiny/tables/mri/mri: {parts}", line)


def test_another_text_of_a_table_has_moved(found):
    (line,) = found(tables={"mri": TABLE.assign(letters=["a", "b"])})
    parts = "1 of 2 values, .*'' to 'b' of model=net,method=lwf"
    assert re.match(f"moved +tiny/tables/mri/letters: {parts}", line)


def test_tables_columns_and_lines_that_are_gone_or_new(found):
    assert found(tables={"ri": TABLE[["model", "mri"]]}) == [
        "gone   tiny/tables/mri/letters: 2 values",
        "gone   tiny/tables/mri/mri: 2 values",
        "new    tiny/tables/ri/mri: 2 values",
    ]
    assert found(tables={"mri": TABLE[["model", "method", "mri"]][1:]}) == [
        "gone   tiny/tables/mri/letters: 2 values",
        "gone   tiny/tables/mri/mri: 1 values, such as of model=net,method=ft",
    ]


def test_lines_with_one_name_are_compared_one_by_one(written):
    twice = pd.concat([TABLE, TABLE])
    before = written("before", tables={"mri": twice})
    after = written("after", tables={"mri": twice.assign(mri=["1.5", "2.5", "1.5", "3.5"])})
    (line,) = differences(before, after)
    assert line.extent.endswith("'2.5' to '3.5' of model=net,method=lwf#2")


def test_runs_and_grids_that_are_gone_or_new(written, tmp_path):
    before = written("before")
    after = written("after", rows=rows_of_run(run="net/red/lwf/all/0"))
    (after / "tiny/networks" / f"{RUN}.safetensors").unlink()
    (after / "more").mkdir()
    assert list(differences(before, after)) == [
        Difference("new", "more", "the whole grid"),
        Difference("gone", f"tiny/rows/{RUN}/red", "3 images"),
        Difference("new", "tiny/rows/net/red/lwf/all/0/red", "3 images"),
        Difference("gone", f"tiny/networks/{RUN}", "the network"),
    ]
    (before / "less").mkdir()
    assert Difference("gone", "less", "the whole grid") in differences(before, after)


def test_what_is_explained_by_kind_and_name_may_differ():
    moved = Difference("moved", "tiny/tables/mri/mri", "1 of 2 values")
    gone = Difference("gone", "tiny/tables/splits/n", "2 values")
    new = Difference("new", "tiny/tables/mri/n", "2 values")
    explanations = compare.read_explanations(
        "# issue, kind, name\n\n25 moved tiny/tables/mri/*  # other networks\n26 gone */splits/*\n"
    )
    assert explanations == [
        Explanation("25", "moved", "tiny/tables/mri/*"),
        Explanation("26", "gone", "*/splits/*"),
    ]
    assert unexplained([moved, gone, new], explanations) == []
    assert unexplained([moved, gone, new], explanations[:1]) == [gone]
    assert unexplained([moved, gone, new], [Explanation("25", "gone", "*")]) == [moved]


@pytest.mark.parametrize("line", ["25 moved", "26 lost a/*", "gone a/* 26 b/*"])
def test_an_explanation_of_another_form_is_refused(line):
    with pytest.raises(ValueError, match=r"dropped.txt: .* has another form"):
        compare.read_explanations(f"25 gone a/*\n{line}\n")
