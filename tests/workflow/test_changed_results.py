"""Results that are changed while a job reads them."""

import os
import shutil
import sys

import pytest

from tiny.projects.waiting import wait_until

pytestmark = pytest.mark.slow

RUN = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0"
CHECKPOINT = f"{RUN}/checkpoint.safetensors"
MAKE_CHECKPOINT = (
    *(sys.executable, "-m", "snakemake", CHECKPOINT, "--cores", "1"),
    *("--config", "family=tiny", "catalog=mine"),
)
PIXELS = "results/tiny/prepare/red/160px-bicubic-crop1/images.npy"


def another_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # it may be a link
    path.write_bytes(data)


def test_an_input_that_is_exchanged_in_mid_run_stops_its_job(finished_copy):
    """Once it is there again, the same command makes the same bytes."""
    folder = finished_copy.folder
    before = (folder / CHECKPOINT).read_bytes()
    shutil.rmtree(folder / RUN)
    run = finished_copy.start(*MAKE_CHECKPOINT)
    assert wait_until(lambda: list((folder / "work").glob("*/job")), 60, every=0.005), (
        finished_copy.printed()
    )
    shutil.copy2(folder / PIXELS, folder / "kept")
    another_byte(folder / PIXELS)
    assert run.wait(300) != 0, finished_copy.printed()
    assert (
        f"{PIXELS}: was changed while" in finished_copy.printed()
        and not (folder / CHECKPOINT).exists()
    )
    os.replace(folder / "kept", folder / PIXELS)
    finished_copy.snakemake(CHECKPOINT, "--cores", "1")
    assert (folder / CHECKPOINT).read_bytes() == before
