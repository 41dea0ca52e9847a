"""Modules that the project's texts and comments speak of are there, as are names in them."""

import re
from pathlib import Path

from tiny.projects.project import ROOT

LIBRARY = ROOT / "workflow/lib/rib"
# Of a module below `rib`, or of a name in one; `rib.load_rows`, `run.rib.zip` and names that all
# modules have, such as `__path__`, are none.
REFERENCE = re.compile(r"\brib((?:\.(?!__)\w+){2,})")
EXAMPLES = "analyses.largest_drop"  # which a reader of docs/adding.md writes


def texts():
    """Files of the project that speak of its modules."""
    code = [*ROOT.glob("workflow/**/*.py"), *ROOT.glob("workflow/**/*.smk")]
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [*code, *pages]


def references():
    """What texts refer to, such as `config.grid.Grid`, with the first file that does."""
    files = {}
    for path in texts():
        for match in REFERENCE.finditer(path.read_text(encoding="utf-8")):
            reference = match[1].removeprefix(".").removesuffix(".__path__")
            if not reference.startswith(EXAMPLES):
                files.setdefault(reference, path.relative_to(ROOT))
    return files


def module_and_name(reference: str) -> tuple[Path | None, str | None]:
    """File of the module that is referred to, if it exists, and the name in it, if one is."""
    folder = LIBRARY
    names = reference.split(".")
    while names and (folder / names[0]).is_dir():
        folder /= names.pop(0)
    module = folder / "__init__.py"
    if names and (folder / f"{names[0]}.py").is_file():
        module = folder / f"{names.pop(0)}.py"
    if not module.is_file():
        return None, None
    return module, names[0] if names else None


def problem(reference: str) -> str | None:
    """What of a reference is missing, or None."""
    module, name = module_and_name(reference)
    if module is None:
        return "no such module"
    is_in_module = name is None or re.search(rf"\b{name}\b", module.read_text(encoding="utf-8"))
    if not is_in_module:
        return f"{module.relative_to(LIBRARY)} has no {name}"
    return None


def test_all_that_texts_refer_to_exists():
    files = references()
    assert len(files) > 100
    problems = {}
    for reference, file in files.items():
        missing = problem(reference)
        if missing is not None:
            problems[f"{file}: rib.{reference}"] = missing
    assert problems == {}
