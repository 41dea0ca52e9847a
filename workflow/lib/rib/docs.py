"""Documentation that is made from what the project checks: the README's table of config.yaml."""

import sys
from collections.abc import Iterator
from pathlib import Path

from rib.catalog import load_schema

BEGIN, END = "<!-- config table: made by `make docs` from workflow/schemas/config.schema.yaml -->", "<!-- end -->"


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


def with_config_table(text: str) -> str:
    """A README with its table renewed, between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{config_table()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_config_table(path.read_text(encoding="utf-8")), encoding="utf-8")
