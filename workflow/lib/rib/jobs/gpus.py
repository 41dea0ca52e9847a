"""Print the option of Snakemake for this machine's GPUs, for `make run`: `--resources gpu=4`.

Nothing is printed without a GPU, or with `compute.device: cpu` in config.yaml.
"""

from pathlib import Path

from rib.base.progress import print_lines
from rib.jobs.gpu_lock import resources_of_gpus
from rib.jobs.messages import errors_as_sentences
from rib.schema.config import config_of
from rib.schema.yaml_files import read_yaml

if __name__ == "__main__":
    with errors_as_sentences():
        compute = config_of(read_yaml(Path("config.yaml")), "config.yaml")["compute"]
    if compute["device"] != "cpu":
        print_lines(resources_of_gpus(compute["jobs_per_gpu"]) or "")
