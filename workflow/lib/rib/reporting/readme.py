"""Generate parts of README.md and docs/ from schemas, catalogue, rules and the example run (`make docs`).

A generated part is enclosed by `<!-- made by make docs: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rib.analysis.fit import read_table
from rib.base.rounding import fit_percent, points
from rib.base.text import markdown
from rib.config.catalog import Catalog
from rib.config.entries import MERGES, SELECT
from rib.config.run import SEEDS, TARGETS, VARIANTS, largest
from rib.config.schema import load_schema

PLACE = re.compile(r"(<!-- made by make docs: (\w+) -->\n).*?(<!-- end -->)", re.S)
CATALOG, CAPTIONS = Path("workflow/catalog"), Path("workflow/report/captions")
EXAMPLE = Path(
    "reports/default_run"
)  # tables and a figure of a default run, copied by `make example`
COMPARED = Path("reports/methods")  # of a run of configs/methods.yaml
OVER = {SEEDS: "several seeds", VARIANTS: "a sweep", TARGETS: "several targets"}  # what merges need
COSTS = ("training", "storage")  # measured against full fine-tuning
PAGE = "write_page"  # the rule that reads the outputs of most other rules


def config_table() -> str:
    """Every key of config.yaml: name, default, meaning."""
    keys = {}
    for name, part in load_schema("config")["properties"].items():
        inner = part.get("properties")
        keys |= {f"{name}.{key}": value for key, value in inner.items()} if inner else {name: part}
    defaults = {key: json.dumps(part["default"]).strip('"') for key, part in keys.items()}
    rows = [
        (f"`{key}`", f"`{defaults[key]}`", part["description"].replace("|", "\\|"))
        for key, part in keys.items()
    ]
    return _table(("key", "default", "meaning"), rows)


def figure_list() -> str:
    """Figures and their captions."""
    captions = {
        path.stem: path.read_text(encoding="utf-8") for path in sorted(CAPTIONS.glob("*.rst"))
    }
    return "\n".join(
        f"- `{name}`: {' '.join(text.split()).replace('``', '`')}"
        for name, text in captions.items()
    )


def method_table(catalog: Catalog) -> str:
    """Methods: name, label, requirements, measured cost and source."""
    rows = []
    for name, method in catalog.methods.items():
        needs = [f"`{parent}`" for parent in method.parents]
        needs += [OVER[method.over]] if method.over in OVER else []
        needs += ["`held_out`"] if method.form == SELECT else []
        needs += ["a reference dataset"] if method.reference == "required" else []
        needs += ["a model of images and texts"] if method.text == "required" else []
        needs += {("vit",): ["a ViT"], ("cnn",): ["a CNN"]}.get(method.types, [])
        measured = dict.fromkeys(COSTS, "0" if method.form in MERGES else "") | method.cost
        costs = (str(measured[key]) for key in COSTS)
        rows.append(
            (f"`{name}`", markdown(method.label), ", ".join(needs), *costs, markdown(method.source))
        )
    return _table(("method", "label", "needs", *COSTS, "source"), rows)


def comparison() -> str:
    """Methods of the kept comparison, best first: mRI, fit and letters of those that are not told apart."""
    mri, ranking = (read_table(COMPARED / f"{name}.csv") for name in ("mri", "ranking"))
    best = mri.sort_values("mri", ascending=False, kind="stable")
    names = (f"`{name}`" for name in best["method"])
    shown = best[["mri", "ci_low", "ci_high"]].to_numpy()
    values = (f"{points(value)} [{points(low)}, {points(high)}]" for value, low, high in shown)
    letters = best["method"].map(ranking.set_index("method")["letters"]).fillna("not ranked")
    fits = map(fit_percent, best["fit"])
    header = ("method", "mRI", "fit (%)", "not told apart")
    return _table(header, zip(names, values, fits, letters, strict=True))


def recipe_table(catalog: Catalog) -> str:
    """Recipes: name, label, what differs from the schema's defaults, and source."""
    known, rows = load_schema("recipes")["additionalProperties"]["properties"], []
    for name, recipe in catalog.recipes.items():
        settings = (
            f"{key} {value}"
            for key, value in recipe.training.items()
            if value != known[key].get("default")
        )
        rows.append(
            (f"`{name}`", markdown(recipe.label), ", ".join(settings), markdown(recipe.source))
        )
    return _table(("recipe", "label", "settings other than the defaults", "source"), rows)


def paper_table(catalog: Catalog) -> str:
    """The paper's figures and tables, what stands for them here, and how far."""
    columns = ("of_paper", "shows", "figure", "tables", "state")
    rows = []
    for row in catalog.table("paper_map.csv", columns, ()):
        ours = ", ".join(
            f"`{name}`"
            for name in (row["figure"], *(f"{name}.csv" for name in row["tables"].split()))
        )
        rows.append(
            (markdown(row["of_paper"]), markdown(row["shows"]), ours, markdown(row["state"]))
        )
    return _table(("of the paper", "shows", "figure and tables", "state"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows])


def headline(catalog: Catalog) -> str:
    """Main result of the example run."""
    ri, accuracy = (read_table(EXAMPLE / name) for name in ("ri.csv", "accuracy.csv"))
    shown = ri[ri["size"] == largest(set(ri["size"]))].sort_values("ri", kind="stable")
    images = accuracy.groupby("dataset")["n"].first()
    methods, targets = (shown[key].nunique() for key in ("method", "target"))
    ends = f"{images.min()} to {images.max()}"
    found = f"{methods} methods on {targets} targets; {len(images)} datasets of {ends} images."
    for what, row in (("Highest RI", shown.iloc[-1]), ("Lowest RI", shown.iloc[0])):
        value, low, high = (points(row[key]) for key in ("ri", "ci_low", "ci_high"))
        unfinished = "; training unfinished" * bool(row.get("unfinished", 0))
        run = (
            catalog.models[row["model"]],
            catalog.methods[row["method"]],
            catalog.datasets[row["target"]],
        )
        names = markdown(", ".join(entry.label for entry in run))
        found += f" {what}: {value} percentage points [{low}, {high}] ({names}{unfinished}{_by_coverage(row)})."
    one_seed = shown["seed"].nunique() == 1
    return (
        found + " One seed: the intervals are over objects, for these trained networks." * one_seed
    )


def _by_coverage(row: Mapping) -> str:
    """RI over classes that the target has and lacks, if they differ in sign or their intervals don't overlap."""
    keys = [
        name
        for which in ("seen", "unseen")
        for name in (f"ri_{which}", f"{which}_low", f"{which}_high")
    ]
    seen, low, high, unseen, least, most = (row.get(key, float("nan")) for key in keys)
    differ = seen * unseen < 0 or low > most or least > high
    if not differ:
        return ""
    return (
        f"; {points(seen)} on classes that the target has, {points(unseen)} on those that it lacks"
    )


def graph(rulegraph: str) -> str:
    """Flowchart from `snakemake --rulegraph mermaid-js`, without inputs of the page that other rules read too."""
    names = dict(re.findall(r"(\w+)\[(\w+)\]", rulegraph))
    edges = sorted(
        (names[a], names[b])
        for a, b in re.findall(r"(\w+) --> (\w+)", rulegraph)
        if names[b] != "all"
    )
    assert edges, "snakemake printed no graph"
    read = {a for a, b in edges if b != PAGE}
    lines = [f"    {a} --> {b}" for a, b in edges if b != PAGE or a not in read]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def renew(pages: Iterable[Path], rulegraph: str) -> None:
    """Regenerate the parts in pages; each part occurs exactly once."""
    catalog = Catalog([CATALOG])
    parts = {"config": config_table(), "figures": figure_list(), "graph": graph(rulegraph)}
    parts |= {
        "methods": method_table(catalog),
        "recipes": recipe_table(catalog),
        "headline": headline(catalog),
    }
    parts |= {"comparison": comparison(), "paper": paper_table(catalog)}
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    places = sorted(name for text in texts.values() for _, name, _ in PLACE.findall(text))
    assert places == sorted(parts), f"the pages have places for {places}"
    for page, text in texts.items():
        page.write_text(
            PLACE.sub(lambda place: f"{place[1]}{parts[place[2]]}\n{place[3]}", text),
            encoding="utf-8",
        )


if __name__ == "__main__":
    renew(map(Path, sys.argv[1:]), sys.stdin.read())
