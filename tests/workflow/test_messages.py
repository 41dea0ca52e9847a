"""A mistake is one sentence, and it is always shown."""

import pytest

from tiny.project import NOISE


def test_jobs_that_fail_beside_others_are_told_at_the_end(finished_copy):
    for name in ("ood", "ri"):
        table = finished_copy.folder / f"reports/tiny/tables/{name}.csv"
        table.write_text(table.read_text().replace("tiny_cnn", "better_cnn"))
    figures = [f"reports/tiny/figures/{name}.png" for name in ("before_after", "ri_matrix")]
    printed = finished_copy.snakemake(*figures, "--keep-going", "--cores", "1", check=False)
    last = printed.strip().splitlines()[-2:]
    assert "ood.csv: not what" in last[0] and "ri.csv: not what" in last[1], printed
    assert all(line.startswith("plot_figure ") for line in last)
    assert not [word for word in NOISE if word in printed]


@pytest.mark.parametrize(
    ("words", "config", "named"),
    [
        (["plan", "--quiet", "all"], ("family=tinyy",), "'tinyy'"),
        (["--quiet", "all"], ("catalog=nowhere",), "nowhere"),
        (["-n"], ("catalog=nowhere",), "nowhere"),
        (["statsu", "--quiet", "all"], (), "statsu"),
    ],
)
def test_a_mistake_is_told_whatever_is_quiet(finished_copy, words, config, named):
    printed = finished_copy.snakemake(*words, config=config, check=False)
    assert named in printed and "Traceback" not in printed and "InputFunction" not in printed


@pytest.mark.parametrize("words", [["-n"], ["--quiet", "all"]])
def test_a_folder_of_images_that_does_not_exist_is_a_sentence(finished_copy, words):
    finished_copy.edit("mine/datasets.yaml", "kind: file", "kind: folder")
    finished_copy.edit("mine/datasets.yaml", "path: archives/blue.zip", "path: images/nowhere")
    printed = finished_copy.snakemake(*words, check=False)
    assert "images/nowhere" in printed.strip().splitlines()[-1]
    assert not [word for word in NOISE if word in printed]
