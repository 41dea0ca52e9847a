"""Compare a finished default run with the kept one: make reproduce

The pretrained networks are published, so another machine predicts the same before fine-tuning, but
for a few images on which two classes are nearly level. Fine-tuning amplifies differences of
rounding. By how much was measured: the same grid was run with several instruction sets of a
processor, and reports/default_run/band.yaml has the largest differences.

    python tests/reproduce.py                            compare the run in this folder
    python tests/reproduce.py --keep                     keep its predictions, after make example
    python tests/reproduce.py --measure AVX2=FOLDER ...  write band.yaml from finished runs, one for
                                                         each instruction set
"""

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rib.records import environment

KEPT = Path(__file__).parents[1] / "reports/default_run"
ROWS = "results/fashion/paper/evaluate/{model}/none/pretrained/all/0/fashion.parquet"
RI = "reports/fashion/tables/ri.csv"
IMAGE = ["model", "dataset", "row"]
RUN = ["model", "method", "seed"]
PREDICTIONS = "pretrained_predictions.parquet"
BAND = "band.yaml"
MARGIN = 2  # a difference is within the band up to this multiple of the largest measured one
LEAST = 0.25  # percentage points that are always within the band


def mri_of_seeds(ri_table: Path) -> pd.Series:
    """mRI in percentage points by model, method and training seed, the mean of RI over targets.

    Raises:
        SystemExit: the run isn't finished.
    """
    if not ri_table.is_file():
        raise SystemExit(f"{ri_table} is missing; run: make run")
    return pd.read_csv(ri_table).groupby(RUN)["ri"].mean()


def pretrained_predictions(project: Path) -> pd.DataFrame:
    """Predicted class of each image before fine-tuning, by the models of a finished run.

    Returns:
        model, dataset, row, prediction.

    Raises:
        SystemExit: the run isn't finished.
    """
    tables = []
    for model in mri_of_seeds(project / RI).index.unique("model"):
        path = project / ROWS.format(model=model)
        if not path.is_file():
            raise SystemExit(f"{path} is missing; run: make run")
        table = pd.read_parquet(path, columns=["dataset", "row", "prediction"])
        tables.append(table.assign(model=model, dataset=table["dataset"].astype(str)))
    return pd.concat(tables)[[*IMAGE, "prediction"]].sort_values(IMAGE, ignore_index=True)


def differing_predictions(predictions: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Number of images that two runs predict differently before fine-tuning, by model of both.

    Raises:
        SystemExit: they are of other networks or images.
    """
    predictions = predictions[predictions["model"].isin(others["model"])]
    others = others[others["model"].isin(predictions["model"])]
    both = predictions.merge(others, on=IMAGE, suffixes=("", "_of_other"))
    if both.empty or len(both) != len(predictions) or len(both) != len(others):
        raise SystemExit(
            "the two runs are of other networks or images; compare runs of the default config."
        )
    differs = both["prediction"] != both["prediction_of_other"]
    return differs.groupby(both["model"]).sum()


def band(runs: Mapping[str, Path]) -> dict[str, Any]:
    """Largest differences between finished runs of one grid.

    Args:
        runs: project folders by instruction set.

    Returns:
        differing_predictions: the most of any network; mri: by model and method, the largest
        difference between two instruction sets at one training seed, in percentage points.
    """
    predictions = [pretrained_predictions(project) for project in runs.values()]
    most = 0
    for one, other in itertools.combinations(predictions, 2):
        most = max(most, int(differing_predictions(one, other).max()))
    mri_of_runs = [mri_of_seeds(project / RI) for project in runs.values()]
    differences = [
        (one - other).abs().dropna() for one, other in itertools.combinations(mri_of_runs, 2)
    ]
    largest = pd.concat(differences).groupby(["model", "method"]).max()
    mri_by_model: dict[str, dict[str, float]] = {}
    for (model, method), difference in largest.items():
        mri_by_model.setdefault(model, {})[method] = round(float(difference), 2)
    return {"differing_predictions": most, "mri": mri_by_model}


def measure(runs: Mapping[str, Path]) -> None:
    """Write band.yaml, with the commit, the date, the processor and the instruction sets."""
    seeds = {}
    for name, project in runs.items():
        seeds[name] = sorted(mri_of_seeds(project / RI).index.unique("seed").tolist())
    facts = {
        "commit": environment.commit(),
        "date": date.today().isoformat(),
        "processor": environment.processor(),
        "seeds_of_instruction_sets": seeds,
    }
    text = yaml.safe_dump({**facts, **band(runs)}, sort_keys=False, allow_unicode=True)
    (KEPT / BAND).write_text(f"# Made by tests/reproduce.py --measure\n{text}", encoding="utf-8")


def compare(project: Path, kept: Path) -> list[str]:
    """Print how a run differs from the kept one; gives a sentence for each difference too large."""
    measured = yaml.safe_load((kept / BAND).read_text(encoding="utf-8"))
    faults = []
    differing = differing_predictions(
        pretrained_predictions(project), pd.read_parquet(kept / PREDICTIONS)
    )
    most = MARGIN * max(1, measured["differing_predictions"])
    for model, images in differing.items():
        print(f"{model}: {images} images are predicted differently before fine-tuning")
        if images > most:
            faults.append(f"{model}: {images} differing predictions, at most {most} are expected")
    mri = mri_of_seeds(project / RI)
    for run, kept_mri in mri_of_seeds(kept / "ri.csv").items():
        model, method, seed = run
        if run not in mri.index:
            faults.append(f"{model}, {method}, seed {seed}: this run doesn't have it")
            continue
        difference = mri[run] - kept_mri
        limit = max(LEAST, MARGIN * measured["mri"][model][method])
        line = f"{model}, {method}: mRI {mri[run]:+.2f}, kept {kept_mri:+.2f}, "
        line += f"difference {difference:+.2f}, limit {limit:.2f}"
        print(line)
        if abs(difference) > limit:
            faults.append(line)
    return faults


def run_of_argument(text: str) -> tuple[str, Path]:
    """An instruction set and a project folder, from a text such as `AVX2=../avx2`."""
    name, _, folder = text.partition("=")
    return name, Path(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, keep or measure."""
    parser = argparse.ArgumentParser(description="Compare a default run with the kept one.")
    parser.add_argument("--keep", action="store_true", help="keep the predictions of this run")
    parser.add_argument("--measure", nargs="+", type=run_of_argument, metavar="NAME=FOLDER")
    parsed = parser.parse_args(arguments)
    if parsed.measure:
        measure(dict(parsed.measure))
        return
    if parsed.keep:
        pretrained_predictions(Path()).to_parquet(KEPT / PREDICTIONS, index=False)
        return
    faults = compare(Path(), KEPT)
    if faults:
        sys.exit("Not reproduced:\n" + "\n".join(faults))
    print("Reproduced: everything is within what was measured between processors.")


if __name__ == "__main__":
    main()
