"""Where files of datasets, models and runs lie: paths are built here, and read back here.

No torch, no pandas. `rib.grid.paths.Paths` builds on it the paths of a grid.
"""

from collections.abc import Iterable
from pathlib import Path

from rib.schema.run import Run


class Layout:
    """Folders of a family's results under a protocol, relative to the project.

    Static methods read a path back. They need its last folders only, so the project may lie
    anywhere:

        layout = Layout("emoji", "paper")
        path = layout.of_run("finetune", run, "manifest.json")
        Layout.run_of(Path(path)) == run
    """

    def __init__(self, family: str, protocol: str):
        self.family = family
        self.protocol = protocol

    def stage(self, stage: str) -> str:
        """Folder of a stage, such as results/fashion/paper/evaluate."""
        return f"results/{self.family}/{self.protocol}/{stage}"

    def of_run(self, stage: str, run: Run, file: str) -> str:
        """A file of a run: results/emoji/paper/finetune/net/noto/ft/all/0/manifest.json."""
        return f"{self.stage(stage)}/{run}/{file}"

    def of_dataset(self, dataset: str, geometry: str, file: str) -> str:
        """A file of a prepared dataset: results/emoji/prepare/noto/encoded/index.parquet."""
        return f"results/{self.family}/prepare/{dataset}/{geometry}/{file}"

    def of_model(self, model: str, file: str) -> str:
        """A file of a pretrained model, such as results/emoji/models/net/model.json."""
        return f"results/{self.family}/models/{model}/{file}"

    def of_text(self, model: str, file: str) -> str:
        """A file of a stored text tower, such as results/emoji/text/clip/tower.safetensors."""
        return f"results/{self.family}/text/{model}/{file}"

    def of_split(self, dataset: str, geometry: str) -> str:
        """File that splits a dataset: results/emoji/held_out/split/noto/encoded.parquet."""
        return f"{self.stage('split')}/{dataset}/{geometry}.parquet"

    @staticmethod
    def run_of(path: Path) -> Run:
        """Run of a file of `of_run`: Run("net", "noto", "ft", "all", 0)."""
        *_, model, target, method, size, seed, _file = path.parts
        return Run(model, target, method, size, int(seed))

    @staticmethod
    def stage_of(path: Path) -> str:
        """Stage of a file of `of_run`, such as finetune."""
        *_, stage, _model, _target, _method, _size, _seed, _file = path.parts
        return stage

    @staticmethod
    def family_of(path: Path) -> str:
        """Family of a file or folder in results, such as emoji for results/emoji/prepare/noto."""
        return path.parts[path.parts.index("results") + 1]

    @staticmethod
    def dataset_of(path: Path) -> str:
        """Name of the dataset of a file of `of_dataset`, such as noto."""
        *_, dataset, _geometry, _file = path.parts
        return dataset


def by_run(files: Iterable[Path]) -> dict[Run, dict[str, Path]]:
    """Files of each run, by name without ending: {run: {"noto": Path(".../noto.safetensors")}}.

    Args:
        files: .../{model}/{target}/{method}/{size}/{seed}/{file}.
    """
    files_of_runs: dict[Run, dict[str, Path]] = {}
    for path in files:
        files_of_run = files_of_runs.setdefault(Layout.run_of(path), {})
        files_of_run[path.stem] = path
    return files_of_runs
