"""What a run prints besides Snakemake's own messages: its pages, and the sentences of mistakes."""

import pytest

pytestmark = pytest.mark.thorough


def figures(project, *names):
    return [f"{project.report()}/figures/{name}.png" for name in names]


def test_a_call_names_the_page_that_it_made(finished_copy):
    page = "Page: reports/tiny/index.html"
    assert "Page: " not in finished_copy.snakemake(*figures(finished_copy, "radar"), "--force")
    (finished_copy.folder / "reports/tiny/tables/ranking.csv").unlink()
    assert finished_copy.snakemake().splitlines().count(page) == 1


def test_the_sentence_of_each_failed_job_ends_its_log_which_is_shown(finished_copy):
    table = finished_copy.folder / f"{finished_copy.report()}/tables/ood.csv"
    table.write_text(table.read_text().replace("tiny_cnn", "better_cnn"))
    drawn = figures(finished_copy, "before_after")
    printed = finished_copy.snakemake(*drawn, "--cores", "1", check=False)
    assert "Traceback (most" not in printed
    log = (finished_copy.folder / "logs/reports/tiny/draw_figures.log").read_text()
    *_, sentence = log.splitlines()
    assert "tables/ood.csv: does not match" in sentence
    assert sentence in printed.splitlines()


def test_a_folder_of_images_that_does_not_exist_is_a_sentence(finished_copy):
    finished_copy.edit("mine/datasets.yaml", "kind: file", "kind: folder")
    finished_copy.edit("mine/datasets.yaml", "path: archives/blue.zip", "path: images/nowhere")
    printed = finished_copy.snakemake("-n", check=False)
    (sentence,) = [line for line in printed.splitlines() if "images/nowhere" in line]
    assert sentence.endswith(".") and "Traceback (most" not in printed
