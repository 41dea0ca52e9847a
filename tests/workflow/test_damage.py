"""Damage and edits of what was made.

All are named by `rib verify`, and nothing is built on them.
"""

import os
import re
import zipfile

import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.thorough

ARCHIVE = "data/raw/blue/blue.zip"
ARRAY = "results/tiny/prepare/green/160px-bicubic-crop1/images.npy"
WEIGHTS = "results/tiny/models/tiny_cnn/weights.safetensors"
CHECKPOINT = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
ROWS = "results/tiny/paper/evaluate/tiny_cnn/red/lwf/all/0/tiny.parquet"
# of WiSE-FT on `green`
MERGED = "results/tiny/paper/evaluate/tiny_cnn/green/wise_ft/all/0"
# What is made from each.
MADE_FROM = {
    ARCHIVE: ARRAY.replace("green", "blue"),
    WEIGHTS: CHECKPOINT,
    ROWS: "reports/tiny/tables/mri.csv",
}


def damage(path):
    """Another last byte; size and time stay, as when a disk forgets."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_all_that_differs_is_named_and_nothing_is_made(finished_copy):
    before = finished_copy.state()
    printed = finished_copy.rib("verify")
    assert "verified 37 jobs" in printed and "all files match their records" in printed
    assert finished_copy.state() == before

    folder = finished_copy.folder
    damage(folder / ARCHIVE)
    with open(folder / CHECKPOINT, "ab") as file:
        file.write(b"edited")
    os.truncate(folder / ROWS, 100)
    (folder / ARRAY).unlink()
    (folder / MERGED / "tiny.provenance.json").unlink()
    before = finished_copy.state()
    printed = finished_copy.rib("verify", check=False)
    assert (
        f"edited or damaged after it was made: 3\n  {ARCHIVE}\n  {ROWS}\n  {CHECKPOINT}\n"
        in printed
    )
    assert f"missing: 1\n  {ARRAY}\n" in printed
    assert "without a provenance record: 2\n" in printed
    for name in ("tiny.manifest.json", "tiny.parquet"):
        assert f"\n  {MERGED}/{name} (no record)\n" in printed
    assert "6 differences" in printed
    assert "made from other inputs" not in printed and "Traceback (most" not in printed
    assert finished_copy.state() == before


def test_nothing_is_built_on_an_edited_table(finished_copy):
    table = finished_copy.folder / "reports/tiny/tables/ood.csv"
    table.write_text(table.read_text().replace("tiny_cnn", "better_cnn"))
    figure = "reports/tiny/figures/before_after.png"
    printed = finished_copy.snakemake(figure, "--cores", "1", check=False)
    assert "Traceback (most" not in printed
    assert not (finished_copy.folder / figure).exists(), "Snakemake takes outputs away before a job"
    # the log ends with the sentence, which Snakemake shows
    log = (finished_copy.folder / "logs/reports/tiny/draw_figures.log").read_text()
    *_, sentence = log.splitlines()
    assert "tables/ood.csv: does not match" in sentence
    assert sentence in printed.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("path", MADE_FROM, ids=lambda path: path.rpartition("/")[2])
def test_nothing_is_built_on_a_damaged_file(finished_copy, path):
    made = MADE_FROM[path]
    damage(finished_copy.folder / path)
    printed = finished_copy.snakemake(made, "--force", "--cores", "1", check=False)
    assert f"{path}: does not match " in printed, printed[-2000:]
    assert not (finished_copy.folder / made).exists(), "Snakemake takes outputs away before a job"


def test_the_limits_of_config_reach_the_jobs(project):
    """A folder of images in place of an archive, since that needs no digest."""
    folder = project.folder / "mine"
    with zipfile.ZipFile(folder / "archives/blue.zip") as archive:
        archive.extractall(folder)
    large = next((folder / "blue").rglob("*_1.png"))
    Image.new("L", (1500, 1400)).save(large)
    datasets = yaml.safe_load((folder / "datasets.yaml").read_text())
    datasets["blue"]["source"] = {"kind": "folder", "path": "blue"}
    (folder / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    (folder / "blue/link.png").symlink_to("/etc/hostname")
    target = MADE_FROM[ARCHIVE]
    printed = project.snakemake(
        target, "--cores", "1", config=("limits={photo_megapixels: 2}",), check=False
    )
    assert re.search(rf"{large.name} .*limits\.photo_megapixels", printed)
    assert "blue/link.png" in printed, "the log names the link that is left out"
    project.snakemake(target, "--cores", "1", config=("limits={photo_megapixels: 3}",))
    assert (project.folder / target).exists()
