"""Generate parts of README.md, docs/ and reports/README.md.

They are made from config, catalogue, rules and kept runs.

`make docs` runs it. A generated part is between `<!-- made by make docs: NAME -->` and `<!-- end
-->`.
"""

import json
import re
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from rib.base.rounding import percent, points
from rib.base.text import markdown
from rib.catalog.catalog import Catalog
from rib.grid.grid import resolve_grid
from rib.grid.paths import Paths
from rib.report.described import described_analyses
from rib.schema.analysis import Figure
from rib.schema.config import Config, config_of
from rib.schema.entries import Method, Recipe
from rib.schema.fields import Described, stated
from rib.schema.forms import MERGES, SELECT
from rib.schema.run import PRETRAINED, SEEDS, TARGETS, VARIANTS
from rib.statistics.bootstrap import spread
from rib.statistics.fit import read_table

# A generated part; `begin` and `end` stay.
PART = re.compile(
    r"(?P<begin><!-- made by make docs: (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.S
)
CATALOG = Path("workflow/catalog")
COMPARED = Path("reports/fashion_methods")  # made by a run of configs/fashion_methods.yaml
FASHION_SEEDS = Path("reports/fashion_seeds")  # made by a run of configs/fashion_seeds.yaml
# Evaluation sets with kinds of change that broad augmentation also has.
LIKE_AUGMENTATION = ("fashion_corrupted", "fashion_tilted")
REPORTS = Path("reports")  # a folder with a README.md for each run that is kept
NOT_RECORDED = "not recorded"
CONFIDENCE = 0.95
REFERENCE = "ft"  # full fine-tuning
SHOWN_METHODS = (REFERENCE, "wise_ft-alpha0.5")
OVER = {SEEDS: "several seeds", VARIANTS: "a sweep", TARGETS: "several targets"}  # what merges need
NETWORKS = {("vit",): "a ViT", ("cnn",): "a CNN"}  # what methods of certain types need
# Grids that together have all figures. Most figures are in every grid; `networks`, `train_subsets`
# and `effective_robustness` are not.
GRIDS_WITH_ALL_FIGURES: tuple[dict[str, Any], ...] = (
    {},
    {"models": ["fashion_cnn_1k", "fashion_cnn_1k_seed1"]},
    {"train_subset": ["all", 20]},
    {"family": "imagenet"},
    {"targets": ["fashion_train"]},
)
# Keys are JSON schema's names.
TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}
COSTS = ("training", "storage")  # relative to full fine-tuning
PAGE = "write_page"  # rule that reads the outputs of most other rules


def config_table() -> str:
    """Table of all keys of config.yaml: name, type, default, meaning."""
    rows = []
    for name, field in _config_keys().items():
        value = field.get_default(call_default_factory=True)
        default = json.dumps(value).strip('"') or '""'
        description = str(field.description).replace("|", "\\|")
        kind = _type_in_words(TypeAdapter(field.rebuild_annotation()).json_schema())
        rows.append((f"`{name}`", kind, f"`{default}`", description))
    return _table(("key", "type", "default", "meaning"), rows)


def _config_keys() -> dict[str, FieldInfo]:
    """Fields of config.yaml by key; a key in a section is called `section.key`."""
    keys = {}
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Described):
            for key, field_of_section in section.model_fields.items():
                keys[f"{name}.{key}"] = field_of_section
        else:
            keys[name] = field
    return keys


def _type_in_words(schema: Mapping[str, Any]) -> str:
    """A type of pydantic's JSON schema in words: "`all`, integer or mapping"."""
    types = list(dict.fromkeys(_types(schema)))
    if TYPES["number"] in types and TYPES["integer"] in types:
        types.remove(TYPES["integer"])  # integers are numbers
    *first_types, last_type = types
    return f"{', '.join(first_types)} or {last_type}" if first_types else last_type


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield "`all`" and "integer" for {"anyOf": [{"const": "all"}, {"type": "integer"}]}."""
    for alternative in schema.get("anyOf", ()):
        yield from _types(alternative)
    if "const" in schema:
        yield f"`{schema['const']}`"
    elif "enum" in schema:
        yield from (f"`{choice}`" for choice in schema["enum"])
    elif "type" in schema:
        yield TYPES[schema["type"]]


def figure_list(catalog: Catalog) -> str:
    """Figures and their captions, as a Markdown list."""
    lines = []
    for name, (_, figure) in sorted(described_figures(catalog).items()):
        caption = " ".join(figure.caption.split()).replace("``", "`")
        lines.append(f"- `{name}`: {caption}")
    return "\n".join(lines)


def described_figures(catalog: Catalog) -> dict[str, tuple[str, Figure]]:
    """Analysis and declaration of all figures, for the list: {"cost": ("cost", Figure(...))}."""
    figures: dict[str, tuple[str, Figure]] = {}
    for choices in GRIDS_WITH_ALL_FIGURES:
        grid = resolve_grid(config_of(choices, "config"), catalog)
        for name, analysis in described_analyses(grid, Paths(grid), "all").items():
            for figure_name, figure in analysis.figures.items():
                figures.setdefault(figure_name, (name, figure))
    return figures


def method_table(catalog: Catalog) -> str:
    """Table of methods: name, label, requirements, measured cost and source."""
    rows = []
    for name, method in catalog.methods.items():
        row = (
            f"`{name}`",
            markdown(method.label),
            ", ".join(_needs(method)),
            *_costs(method),
            markdown(method.source),
        )
        rows.append(row)
    return _table(("method", "label", "needs", *COSTS, "source"), rows)


def _needs(method: Method) -> list[str]:
    """Requirements besides a pretrained model and a target: ["`ft`", "several seeds"]."""
    needs = [f"`{parent}`" for parent in method.parents]
    if method.over in OVER:
        needs.append(OVER[method.over])
    if method.form == SELECT:
        needs.append("`held_out`")
    if method.reference == "required":
        needs.append("a reference dataset")
    if method.text == "required":
        needs.append("a model of images and texts")
    if method.types in NETWORKS:
        needs.append(NETWORKS[method.types])
    return needs


def _costs(method: Method) -> list[str]:
    """Time and storage relative to `ft`, ["1.1", "0.01"]; not measured: "", or "0" for merges."""
    not_measured = "0" if method.form in MERGES else ""
    costs = stated(method.cost)
    return [str(costs.get(cost, not_measured)) for cost in COSTS]


def comparison() -> str:
    """Table of methods in reports/fashion_methods, the highest mRI first.

    Means over networks; differences from full fine-tuning are paired by network. `clearly` counts
    networks by the test of all pairs of methods. No interval stands beside it: one over networks
    may exclude 0 where the tests don't, and the other way round.
    """
    means = _rows_over_networks(COMPARED).set_index(["method", "measure"])
    line_of = means.to_dict("index")
    differences = read_table(COMPARED / "method_differences.csv")
    is_shown = (differences["over"] == "networks") & (differences["measure"] == "mri")
    difference_of = differences[is_shown].set_index("method").to_dict("index")
    comparisons = read_table(COMPARED / "comparisons.csv")
    seconds = read_table(COMPARED / "cost.csv").groupby("method")["finetune"].sum()
    mri = means.xs("mri", level="measure")["mean"]
    rows = []
    for method in mri.sort_values(ascending=False, kind="stable").index:
        more_than_reference = ""
        clearly = ""
        if method != REFERENCE:
            more_than_reference = points(difference_of[method]["mean"])
            clearly = _clearly(comparisons, method)
        row = (
            f"`{method}`",
            more_than_reference,
            clearly,
            points(line_of[method, "mri"]["mean"]),
            points(line_of[method, "in_distribution"]["mean"]),
            percent(line_of[method, "on_target"]["mean"]),
            f"{seconds[method] / seconds[REFERENCE]:.1f}",
        )
        rows.append(row)
    header = (
        "method",
        f"more than `{REFERENCE}`",
        "clearly",
        "mRI",
        "in distribution",
        "on the training images (%)",
        "training time",
    )
    return _table(header, rows)


def _clearly(comparisons: pd.DataFrame, method: str) -> str:
    """Networks with a clear difference from the reference: `3 above`, `1 above, 2 below`."""
    # A pair is in the table once for each network, in either order.
    has_both = comparisons[["method", "other"]].isin([method, REFERENCE]).all(axis=1)
    pairs = comparisons[has_both]
    if pairs.empty:
        return "no test"
    clear_pairs = pairs[pairs["p_holm"] < 1 - CONFIDENCE]
    is_first = clear_pairs["method"] == method
    more_than_reference = clear_pairs["difference"].where(is_first, -clear_pairs["difference"])
    counts = {"above": (more_than_reference > 0).sum(), "below": (more_than_reference < 0).sum()}
    sides = [f"{count} {side}" for side, count in counts.items() if count]
    return ", ".join(sides) or "none"


def _with_interval(value: float, low: float, high: float) -> str:
    """`+1.2 [+0.3, +2.1]`, in percentage points."""
    return f"{points(value)} [{points(low)}, {points(high)}]"


def recipe_table(catalog: Catalog) -> str:
    """Table of recipes: name, label, differences from the defaults, and source."""
    rows = []
    for name, recipe in catalog.recipes.items():
        settings = [
            f"{key} {setting}"
            for key, setting in recipe.training.items()
            if setting != Recipe.model_fields[key].get_default(call_default_factory=True)
        ]
        row = (
            f"`{name}`",
            markdown(recipe.label),
            ", ".join(settings),
            markdown(recipe.source),
        )
        rows.append(row)
    return _table(("recipe", "label", "settings other than the defaults", "source"), rows)


def paper_table(catalog: Catalog) -> str:
    """Table of the paper's figures and tables, their counterparts here, and how far these agree."""
    columns = ("of_paper", "shows", "figure", "tables", "state")
    rows = []
    for line in catalog.table("paper_map.csv", columns, ()):
        files = [line["figure"]]
        files += [f"{name}.csv" for name in line["tables"].split()]
        row = (
            markdown(line["of_paper"]),
            markdown(line["shows"]),
            ", ".join(f"`{name}`" for name in files),
            markdown(line["state"]),
        )
        rows.append(row)
    return _table(("of the paper", "shows", "figure and tables", "state"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown, with lines `| a | b |`."""
    rule = ("---",) * len(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def fashion_kinds() -> str:
    """Table of accuracy before and after each method, and mRI, by kind of network.

    From reports/fashion_seeds. Means over networks, with t intervals over networks; differences
    between methods are paired.
    """
    networks = read_table(FASHION_SEEDS / "networks.csv").query("measure == 'mri'")
    mri = networks.pivot(index=["group", "model"], columns="method", values="value")
    rows = []
    for kind, means_of_kind in _rows_over_networks(FASHION_SEEDS).groupby("group", sort=False):
        for method, means in means_of_kind.groupby("method", sort=False):
            line_of = means.set_index("measure").to_dict("index")
            before = percent(line_of["ood_before"]["mean"])
            after = percent(line_of["ood_after"]["mean"])
            more_than_reference = ""
            if method != REFERENCE:
                differences = mri[method] - mri[REFERENCE]
                more_than_reference = _mean_over_networks(differences[kind])
            row = (
                markdown(str(kind)),
                f"`{method}`",
                f"{before}, {after}",
                _mean_with_interval(line_of["mri"]),
                more_than_reference,
                _mean_with_interval(line_of["in_distribution"]),
                percent(line_of["on_target"]["mean"]),
            )
            rows.append(row)
    header = (
        "networks",
        "method",
        "on the other sets, before and after (%)",
        "mRI",
        f"more than `{REFERENCE}`",
        "in distribution",
        "on the training images (%)",
    )
    return _table(header, rows)


def fashion_unlike_augmentation() -> str:
    """Table of mRI by kind of network, with and without sets that resemble the augmentation.

    Means over networks, with t intervals over networks, computed from accuracies.
    """
    networks = read_table(FASHION_SEEDS / "networks.csv").drop_duplicates("model")
    kind_of = networks.set_index("model")["group"]
    accuracy = read_table(FASHION_SEEDS / "accuracy.csv").query("role == 'ood'")
    of_all_sets = _mri_of_networks(accuracy)
    is_like_augmentation = accuracy["dataset"].isin(LIKE_AUGMENTATION)
    of_some_sets = _mri_of_networks(accuracy[~is_like_augmentation])
    rows = []
    for kind, models in kind_of.groupby(kind_of, sort=False):
        for method in SHOWN_METHODS:
            row = [markdown(str(kind)), f"`{method}`"]
            for mri in (of_all_sets, of_some_sets):
                row.append(_mean_over_networks(mri.loc[models.index, method]))
            rows.append(tuple(row))
    return _table(("networks", "method", "mRI", "mRI without these sets"), rows)


def _mri_of_networks(accuracy: pd.DataFrame) -> pd.DataFrame:
    """mRI of models (rows) and methods (columns): mean over targets and training seeds."""
    before = accuracy[accuracy["method"] == PRETRAINED].rename(columns={"accuracy": "before"})
    after = accuracy[accuracy["dataset"] != accuracy["target"]]
    before_and_after = after.merge(before[["model", "dataset", "before"]], on=["model", "dataset"])
    change = before_and_after["accuracy"] - before_and_after["before"]
    columns_of_run = [before_and_after[key] for key in ("model", "method", "target", "seed")]
    ri = change.groupby(columns_of_run).mean()
    return ri.groupby(["model", "method"]).mean().unstack()


def kept_runs() -> str:
    """Table of the runs kept in reports/: what each is, its machine, commit and date.

    A row is made from the README.md of a run's folder: its first heading, and the lines `Machine`
    and `Kept in commit` (commit, date) of its table.
    """
    rows = []
    for page in sorted(REPORTS.glob("*/README.md")):
        text = page.read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        fact_of = dict(re.findall(r"^\| ([\w ]+?) +\| (.*?) +\|$", text, re.MULTILINE))
        commit, _, date = fact_of.get("Kept in commit", "").partition(",")
        row = (
            f"[{page.parent.name}]({page.parent.name}/README.md)",
            title[1] if title else NOT_RECORDED,
            fact_of.get("Machine") or NOT_RECORDED,
            commit.strip() or NOT_RECORDED,
            date.strip() or NOT_RECORDED,
        )
        rows.append(row)
    return _table(("run", "what it is", "made on", "commit", "date"), rows)


def _rows_over_networks(folder: Path) -> pd.DataFrame:
    """Rows of the folder's network_groups.csv whose interval is over networks, not over objects."""
    groups = read_table(folder / "network_groups.csv")
    return groups[groups["over"] == "networks"]


def _mean_over_networks(values: pd.Series) -> str:
    """`+1.2 [+0.3, +2.1]`: the mean over networks with its t interval."""
    _networks, _deviation, low, high = spread(values.to_numpy(), CONFIDENCE)
    return _with_interval(values.mean(), low, high)


def _mean_with_interval(line: Mapping[Hashable, Any]) -> str:
    """`+1.2 [+0.3, +2.1]` from a row with mean, ci_low and ci_high."""
    return _with_interval(line["mean"], line["ci_low"], line["ci_high"])


def graph(rulegraph: str) -> str:
    """Mermaid flowchart of the rules; an arrow leads to a rule that reads the output.

    Nearly all rules have an arrow to the page; it is drawn only if they have no other.

    Args:
        rulegraph: output of `snakemake --rulegraph mermaid-js`, with nodes `id0[finetune]` and
            edges `id0 --> id1`.
    """
    rule_of_node = dict(re.findall(r"(\w+)\[(\w+)\]", rulegraph))
    edges = []
    for start, end in re.findall(r"(\w+) --> (\w+)", rulegraph):
        if rule_of_node[end] != "all":
            edges.append((rule_of_node[start], rule_of_node[end]))
    assert edges, "snakemake printed no graph"
    rules_with_other_arrows = {start for start, end in edges if end != PAGE}
    lines = []
    for start, end in sorted(edges):
        if end == PAGE and start in rules_with_other_arrows:
            continue
        lines.append(f"    {start} --> {end}")
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def renew(pages: Iterable[Path], rulegraph: str) -> None:
    """Regenerate the parts of pages; each part must occur exactly once.

    Args:
        pages: Markdown files, which are rewritten.
        rulegraph: output of `snakemake --rulegraph mermaid-js`.
    """
    catalog = Catalog([CATALOG])
    text_of_part = {
        "config": config_table(),
        "figures": figure_list(catalog),
        "graph": graph(rulegraph),
        "methods": method_table(catalog),
        "recipes": recipe_table(catalog),
        "comparison": comparison(),
        "fashion_kinds": fashion_kinds(),
        "fashion_unlike_augmentation": fashion_unlike_augmentation(),
        "paper": paper_table(catalog),
        "kept_runs": kept_runs(),
    }
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    names = []
    for text in texts.values():
        names += [match["name"] for match in PART.finditer(text)]
    assert sorted(names) == sorted(text_of_part), f"the pages have places for {sorted(names)}"

    def renewed(match: re.Match[str]) -> str:
        return f"{match['begin']}{text_of_part[match['name']]}\n{match['end']}"

    for page, text in texts.items():
        page.write_text(PART.sub(renewed, text), encoding="utf-8")


if __name__ == "__main__":
    renew(map(Path, sys.argv[1:]), sys.stdin.read())
