"""Parts of the README that are made from what the project checks, reads or has measured (`make docs`).

A part stands between `<!-- made by make docs: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from rib.catalog import SELECT, Catalog, load_schema
from rib.report import caption_of
from rib.runs import largest

# Copied from a default run's report by `make docs`: the README's figure and numbers; tests/acceptance compares.
EXAMPLE = Path("reports/default_run")
CAPTIONS = Path("workflow/report/figures.rst")
CATALOG = Path("workflow/catalog")


def config_table() -> str:
    """Markdown table of every key of config.yaml: name, default, meaning."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | `{default}` | {meaning} |" for key, default, meaning in _keys(load_schema("config"))]
    return "\n".join(lines)


def _keys(schema: dict, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, part in schema["properties"].items():
        if "properties" in part:
            yield from _keys(part, f"{prefix}{name}.")
        else:
            default = part["default"]
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            yield f"{prefix}{name}", shown, part["description"].replace("|", "\\|")


def figure_list() -> str:
    """Markdown list of the figures and how to read them."""
    names = re.findall(r'^"(\w+)":', CAPTIONS.read_text(encoding="utf-8"), re.M)
    return "\n".join(f"- `{name}`: {caption_of(name, CAPTIONS)}" for name in names)


def method_table() -> str:
    """Markdown table of the methods: what they are called, where they come from, what they need."""
    lines = ["| method | label | needs | source |", "|---|---|---|---|"]
    for name, method in Catalog([CATALOG]).methods.items():
        needs = [f"`{parent}`" for parent in method.parents]
        needs += ["`held_out`"] if method.form == SELECT else []
        needs += ["a reference dataset"] if method.reference == "required" else []
        needs += [f"a {method.types[0].upper().replace('VIT', 'ViT')}"] if len(method.types) == 1 else []
        lines.append(f"| `{name}` | {method.label} | {', '.join(needs)} | {method.source} |")
    return "\n".join(lines)


def headline() -> str:
    """What the example run found, in sentences with its numbers."""
    catalog = Catalog([CATALOG])
    ri, accuracy = (pd.read_csv(EXAMPLE / f"{name}.csv", dtype={"size": str}) for name in ("ri", "accuracy"))
    ri = ri[ri["size"] == largest(ri["size"].unique())]
    images = accuracy.drop_duplicates("dataset")["n"]

    def told(line: pd.Series) -> str:
        run = f"{catalog.models[line['model']].label}, {catalog.methods[line['method']].label}, on {catalog.datasets[line['target']].label}"
        return f"{line['ri']:+.1f} percentage points [{line['ci_low']:+.1f}, {line['ci_high']:+.1f}] ({run})"

    return (
        f"RI of {ri['method'].nunique()} methods on {ri['target'].nunique()} targets, from `make run`: "
        f"{len(images)} datasets of {images.min()} to {images.max()} images. "
        f"Most gained: {told(ri.loc[ri['ri'].idxmax()])}; most lost: {told(ri.loc[ri['ri'].idxmin()])}."
    )


def graph(rulegraph: str) -> str:
    """The rules and what they hand on, as a Mermaid flowchart for Markdown.

    Args:
        rulegraph: what `snakemake --rulegraph mermaid-js` prints.

    Raises:
        ValueError: it has no edges, as when Snakemake failed.
    """
    names = dict(re.findall(r"^\s*(\w+)\[(\w+)\]$", rulegraph, re.M))
    edges = {(names[a], names[b]) for a, b in re.findall(r"^\s*(\w+) --> (\w+)$", rulegraph, re.M)}
    edges = {(a, b) for a, b in edges if b != "all"}
    if not edges:
        raise ValueError("snakemake printed no graph of rules")
    # The page reads every job's record: drawn from the last stages only, it can be followed.
    indirect = {(a, b) for a, b in edges if b == "write_page" and any(start == a and end != b for start, end in edges)}
    lines = [f"    {a} --> {b}" for a, b in sorted(edges - indirect)]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def renewed(text: str, parts: Mapping[str, str]) -> str:
    """A README with the given parts made anew.

    Raises:
        ValueError: the text has no place for a part.
    """
    for name, content in parts.items():
        place = re.compile(rf"(<!-- made by make docs: {name} -->\n).*?(\n<!-- end -->)", re.S)
        if not place.search(text):
            raise ValueError(f"there is no place for '{name}'")
        text = place.sub(lambda match, content=content: match[1] + content + match[2], text)
    return text


def standing_parts() -> dict[str, str]:
    """The parts that follow from the repository alone, in the project's folder."""
    return {"config": config_table(), "figures": figure_list(), "headline": headline(), "methods": method_table()}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    renewed_text = renewed(path.read_text(encoding="utf-8"), {**standing_parts(), "graph": graph(sys.stdin.read())})
    path.write_text(renewed_text, encoding="utf-8")
