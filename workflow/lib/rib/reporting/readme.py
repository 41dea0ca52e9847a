"""Generate parts of README.md and docs/ from schemas, catalogue, rules and the example run.

`make docs` calls it. A generated part is enclosed by `<!-- made by make docs: NAME -->` and
`<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rib.analysis.fit import read_table
from rib.base.rounding import fit_percent, percent, points, rounded
from rib.base.text import markdown
from rib.config.catalog import Catalog
from rib.config.entries import MERGES, SELECT, Method
from rib.config.run import SEEDS, TARGETS, VARIANTS, largest
from rib.config.schema import load_schema
from rib.reporting.answer import AnswerNames, AnswerTables, answer

# A generated part, of which `begin` and `end` stay.
PART = re.compile(
    r"(?P<begin><!-- made by make docs: (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.S
)
CATALOG = Path("workflow/catalog")
ANALYSES = Path("workflow/lib/rib/analyses")
EXAMPLE = Path("reports/default_run")  # files of a default run, copied by `make example`
COMPARED = Path("reports/methods")  # of a run of configs/methods.yaml
FASHION_METHODS = Path("reports/fashion_methods")  # of a run of configs/fashion_methods.yaml
FASHION_SEEDS = Path("reports/fashion_seeds")  # of a run of configs/fashion_seeds.yaml
# Of a run of some methods of configs/fashion_methods.yaml with further networks.
FASHION_REPLICATION = Path("reports/fashion_replication")
REFERENCE = "ft"  # full fine-tuning, with which methods on fashion are compared
OVER = {SEEDS: "several seeds", VARIANTS: "a sweep", TARGETS: "several targets"}  # what merges need
NETWORKS = {("vit",): "a ViT", ("cnn",): "a CNN"}  # that methods of some types need
COSTS = ("training", "storage")  # measured against full fine-tuning
# Where the key of a setting ends and its value begins in the name of a variant: `alpha0.5`.
SETTING_IN_NAME = re.compile(r"(?<=[a-z_])(?=\d)")
PAGE = "write_page"  # the rule that reads the outputs of most other rules


def config_table() -> str:
    """Every key of config.yaml: name, default, meaning."""
    rows = []
    for name, schema in _config_keys().items():
        default = json.dumps(schema["default"]).strip('"')
        description = schema["description"].replace("|", "\\|")
        rows.append((f"`{name}`", f"`{default}`", description))
    return _table(("key", "default", "meaning"), rows)


def _config_keys() -> dict[str, dict[str, Any]]:
    """Schema of each key of config.yaml; keys in a section are called `section.key`."""
    schemas = {}
    for name, schema in load_schema("config")["properties"].items():
        keys_of_section = schema.get("properties")
        if keys_of_section:
            for key, schema_of_key in keys_of_section.items():
                schemas[f"{name}.{key}"] = schema_of_key
        else:
            schemas[name] = schema
    return schemas


def figure_list() -> str:
    """Figures and their captions, as a list in Markdown."""
    lines = []
    caption_files = [path for path in ANALYSES.glob("*/*.rst") if path.with_suffix(".py").is_file()]
    for path in sorted(caption_files, key=lambda path: path.stem):
        words = path.read_text(encoding="utf-8").split()
        caption = " ".join(words).replace("``", "`")
        lines.append(f"- `{path.stem}`: {caption}")
    return "\n".join(lines)


def method_table(catalog: Catalog) -> str:
    """Methods: name, label, requirements, measured cost and source."""
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
    """What a method needs, besides a pretrained model and a target."""
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
    """Measured costs of a method, in the order of `COSTS`; empty for those not measured."""
    not_measured = "0" if method.form in MERGES else ""
    return [str(method.cost.get(cost, not_measured)) for cost in COSTS]


def comparison() -> str:
    """Methods of the kept comparison, best first: mRI, fit and letters of those not told apart."""
    letters = read_table(COMPARED / "ranking.csv").set_index("method")["letters"]
    rows = []
    for line in _best_first(COMPARED):
        method = line["method"]
        row = (
            f"`{method}`",
            _with_interval(line["mri"], line["ci_low"], line["ci_high"]),
            fit_percent(line["fit"]),
            letters.get(method, "not ranked"),
        )
        rows.append(row)
    return _table(("method", "mRI", "fit (%)", "letters (same: not told apart)"), rows)


def fashion_methods() -> str:
    """Methods of the kept comparison on fashion, best first, with differences from a reference.

    The reference is full fine-tuning. Differences come first, with simultaneous intervals, then
    mRI, the change in distribution, accuracy on the target, and processor time as a multiple of
    that of the reference.
    """
    ranking = read_table(FASHION_METHODS / "ranking.csv").set_index("method")
    in_distribution = read_table(FASHION_METHODS / "in_distribution.csv").set_index("method")
    seconds = read_table(FASHION_METHODS / "cost.csv").set_index("method")["seconds"]
    assert set(ranking["reference"]) == {REFERENCE}
    rows = []
    for line in _best_first(FASHION_METHODS):
        method = line["method"]
        change = in_distribution.loc[method]
        row = (
            f"`{method}`",
            _difference_from_reference(line, ranking),
            _with_interval(line["mri"], line["ci_low"], line["ci_high"]),
            _with_interval(change["change"], change["ci_low"], change["ci_high"]),
            percent(line["on_target"]),
            f"{rounded(seconds[method] / seconds[REFERENCE])}",
        )
        rows.append(row)
    header = (
        "method",
        f"mRI minus that of `{REFERENCE}`",
        "mRI",
        "in distribution",
        "on the target (%)",
        f"processor time (x `{REFERENCE}`)",
    )
    return _table(header, rows)


def fashion_networks(catalog: Catalog) -> str:
    """Differences of methods from full fine-tuning in mRI, by network of the kept grid of seeds.

    Intervals hold for all methods of a network at once.
    """
    ranking = read_table(FASHION_SEEDS / "ranking.csv")
    methods = sorted(set(ranking["method"]) - {REFERENCE})
    networks = [name for name in catalog.models if name in set(ranking["model"])]
    rows = [
        (markdown(catalog.models[network].label), *_differences(ranking, network, methods))
        for network in networks
    ]
    return _table(("network", *(f"`{method}`" for method in methods)), rows)


def fashion_replication(catalog: Catalog) -> str:
    """Differences from full fine-tuning in mRI of the methods that were run on further networks.

    The first network is that of the kept comparison of all methods, in whose order they are.
    Intervals hold for all methods of a run on a network at once.
    """
    first_ranking = read_table(FASHION_METHODS / "ranking.csv")
    further_ranking = read_table(FASHION_REPLICATION / "ranking.csv")
    further_methods = set(further_ranking["method"]) - {REFERENCE}
    methods = [method for method in first_ranking["method"] if method in further_methods]
    columns = []
    labels = []
    for ranking in (first_ranking, further_ranking):
        for network in sorted(set(ranking["model"])):
            labels.append(markdown(catalog.models[network].label))
            columns.append(_differences(ranking, network, methods))
    rows = []
    for number, method in enumerate(methods):
        rows.append((f"`{method}`", *(column[number] for column in columns)))
    return _table(("method", *labels), rows)


def _differences(ranking: pd.DataFrame, network: str, methods: Iterable[str]) -> list[str]:
    """Differences of methods from full fine-tuning in mRI on a network, with their intervals.

    Args:
        ranking: ranking.csv of a run that is compared to full fine-tuning.
        network: name of the network's model.
        methods: those of which the difference is given; one without a rank has none.
    """
    assert set(ranking["reference"]) == {REFERENCE}
    rows_of_network = ranking[ranking["model"] == network].to_dict("records")
    row_of_method = {row["method"]: row for row in rows_of_network}
    differences = []
    for method in methods:
        if method not in row_of_method:
            differences.append("not ranked")
            continue
        row = row_of_method[method]
        differences.append(_with_interval(row["difference"], row["diff_low"], row["diff_high"]))
    return differences


def _best_first(comparison_folder: Path) -> list[dict[Hashable, Any]]:
    """Lines of mri.csv of a kept comparison of methods, that with the highest mRI first."""
    mri = read_table(comparison_folder / "mri.csv")
    return mri.sort_values("mri", ascending=False, kind="stable").to_dict("records")


def _difference_from_reference(line: Mapping[Hashable, Any], ranking: pd.DataFrame) -> str:
    """Difference of a method's mRI from that of the reference, or why there is none.

    Args:
        line: the method's line in mri.csv.
        ranking: ranking.csv, by method.
    """
    method = line["method"]
    if method == REFERENCE:
        return "reference"
    if line["unfinished"]:
        return "unfinished"
    if method not in ranking.index:
        return "not ranked"  # a merge over seeds: one network for each target
    ranked = ranking.loc[method]
    return _with_interval(ranked["difference"], ranked["diff_low"], ranked["diff_high"])


def _with_interval(value: float, low: float, high: float) -> str:
    """A difference in percentage points and its interval: `+1.2 [+0.3, +2.1]`."""
    return f"{points(value)} [{points(low)}, {points(high)}]"


def recipe_table(catalog: Catalog) -> str:
    """Recipes: name, label, what differs from the schema's defaults, and source."""
    schemas = load_schema("recipes")["additionalProperties"]["properties"]
    rows = []
    for name, recipe in catalog.recipes.items():
        settings = [
            f"{key} {setting}"
            for key, setting in recipe.training.items()
            if setting != schemas[key].get("default")
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
    """The paper's figures and tables, what stands for them here, and how far."""
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
    """A table in Markdown."""
    rule = ("---",) * len(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def headline(catalog: Catalog) -> str:
    """Main result of the example run: the answer that its page begins with, and more numbers."""
    ri = read_table(EXAMPLE / "ri.csv")
    accuracy = read_table(EXAMPLE / "accuracy.csv")
    largest_size = largest(set(ri["size"]))
    shown = ri[ri["size"] == largest_size].sort_values("ri", kind="stable")
    rows = shown.to_dict("records")  # the lowest RI first
    images = accuracy.groupby("dataset")["n"].first()
    sentences = [
        f"{shown['method'].nunique()} methods on {shown['target'].nunique()} targets; "
        f"{len(images)} datasets of {images.min()} to {images.max()} images.",
        f"Highest RI: {_ri_of_run(catalog, rows[-1])}.",
        f"Lowest RI: {_ri_of_run(catalog, rows[0])}.",
    ]
    if shown["seed"].nunique() == 1:
        sentences.append("One seed: the intervals are over objects, for these trained networks.")
    return "\n".join([*_answer_lines(catalog, largest_size), "", " ".join(sentences)])


def _answer_lines(catalog: Catalog, size: str) -> list[str]:
    """The answer of the example run in Markdown: its sentence, and a list of statements.

    Args:
        catalog: which has the labels of models and methods.
        size: the training subset that it is of.
    """
    tables_of_size = {}
    optional = ("in_distribution", "ranking", "comparisons", "pretraining_sizes", "leak_free")
    for name in ("mri", *optional):
        path = EXAMPLE / f"{name}.csv"
        if path.is_file():
            table = read_table(path)
            tables_of_size[name] = table[table["size"] == size]
    mri = tables_of_size["mri"]
    methods = list(dict.fromkeys(mri["method"]))
    is_paper_protocol = mri["conditions"].str.contains("protocol paper")
    names = AnswerNames(
        models={name: markdown(catalog.models[name].label) for name in set(mri["model"])},
        methods={name: markdown(_method_label(catalog, name)) for name in methods},
        averages=_averages(catalog, methods),
        target_was_trained_on=bool(is_paper_protocol.all()),
    )
    answer_of_run = answer(AnswerTables(**tables_of_size), names)
    lines = [f"**{answer_of_run.headline}**", ""]
    for statement in answer_of_run.statements:
        lines.append(f"- {statement.subject}: {statement.text}")
    return lines


def _method_label(catalog: Catalog, name: str) -> str:
    """Label of a method, or of a variant with its settings.

    That of `wise_ft-alpha0.5` is the label of `wise_ft` and `, alpha 0.5`.
    """
    base, *settings = name.split("-")
    label = catalog.methods[base].label
    for setting in settings:
        label += f", {SETTING_IN_NAME.sub(' ', setting)}"
    return label


def _averages(catalog: Catalog, names: Iterable[str]) -> dict[str, str]:
    """Parent of each of the methods that averages a parent's weights with the pretrained ones.

    For example {"wise_ft-alpha0.5": "ft"}.

    Args:
        names: of methods or their variants.
    """
    parents = {}
    for name in names:
        entry, *_settings = name.split("-")
        method = catalog.methods[entry]
        is_average = method.form in MERGES and "alpha" in method.settings
        if is_average and len(method.parents) == 1:
            parents[name] = method.parents[0]
    return parents


def _ri_of_run(catalog: Catalog, row: Mapping[Hashable, Any]) -> str:
    """RI of a run, its interval and its labels; a row of ri.csv.

    An example is `+1.2 percentage points [+0.3, +2.1] (ResNet-50, full fine-tuning, Noto)`.
    """
    labels = [
        catalog.models[row["model"]].label,
        _method_label(catalog, row["method"]),
        catalog.datasets[row["target"]].label,
    ]
    run = markdown(", ".join(labels))
    if row.get("unfinished", 0):
        run += "; training unfinished"
    run += _by_coverage(row)
    interval = f"[{points(row['ci_low'])}, {points(row['ci_high'])}]"
    return f"{points(row['ri'])} percentage points {interval} ({run})"


def _by_coverage(row: Mapping[Hashable, Any]) -> str:
    """RI over classes that the target has and lacks, if they differ; a row without them has none.

    They do if they have other signs, or their intervals don't overlap.

    Args:
        row: of ri.csv: ri_seen with the interval from seen_low to seen_high, over classes that the
            target has, and ri_unseen, unseen_low and unseen_high, over those that it lacks.
    """
    missing = float("nan")  # compares as false with every number
    seen = row.get("ri_seen", missing)
    unseen = row.get("ri_unseen", missing)
    have_other_signs = seen * unseen < 0
    is_seen_above = row.get("seen_low", missing) > row.get("unseen_high", missing)
    is_unseen_above = row.get("unseen_low", missing) > row.get("seen_high", missing)
    if not (have_other_signs or is_seen_above or is_unseen_above):
        return ""
    return (
        f"; {points(seen)} on classes that the target has, {points(unseen)} on those that it lacks"
    )


def graph(rulegraph: str) -> str:
    """Flowchart of the rules in Mermaid's notation; an arrow leads to a rule that reads the output.

    An arrow to the rule of the page is left out if the rule at its start has others: nearly all
    rules have an arrow to the page, which would hide the rest.

    Args:
        rulegraph: output of `snakemake --rulegraph mermaid-js`, in which `id0[finetune]` is a node
            with the name of its rule, and `id0 --> id1` an edge.
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
    """Regenerate the parts in pages; each part occurs exactly once.

    A part is between the comments `<!-- made by make docs: NAME -->` and `<!-- end -->`.

    Args:
        pages: Markdown files, which are rewritten.
        rulegraph: output of `snakemake --rulegraph mermaid-js`.
    """
    catalog = Catalog([CATALOG])
    parts = {
        "config": config_table(),
        "figures": figure_list(),
        "graph": graph(rulegraph),
        "methods": method_table(catalog),
        "recipes": recipe_table(catalog),
        "headline": headline(catalog),
        "comparison": comparison(),
        "fashion_methods": fashion_methods(),
        "fashion_networks": fashion_networks(catalog),
        "fashion_replication": fashion_replication(catalog),
        "paper": paper_table(catalog),
    }
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    names = []
    for text in texts.values():
        names += [match["name"] for match in PART.finditer(text)]
    assert sorted(names) == sorted(parts), f"the pages have places for {sorted(names)}"

    def renewed(match: re.Match[str]) -> str:
        """A part of a page, with what is generated now between its comments."""
        return f"{match['begin']}{parts[match['name']]}\n{match['end']}"

    for page, text in texts.items():
        page.write_text(PART.sub(renewed, text), encoding="utf-8")


if __name__ == "__main__":
    renew(map(Path, sys.argv[1:]), sys.stdin.read())
