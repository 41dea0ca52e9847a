"""Sphinx configuration: README.md and docs/ as a site (`make site`).

Code hosts show the same pages as they are.
"""

import re

project = html_title = "ImageNet-RIB workflow"
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "data/README.md",
    "data/networks/README.md",
    "tests/benchmarks/README.md",
    "reports/**.md",
]
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4  # as code hosts make them, so that links to headings work in both
# Pygments knows no CSV; some pages, such as reports, are only linked to.
suppress_warnings = ["misc.highlighting_failure", "toc.not_included"]
html_theme = "furo"


def add_contents(app, name: str, source: list[str]) -> None:
    """Append the contents of the site to README.md, in the order of its list of pages.

    Args:
        source: the page's text, as its one item; Sphinx takes what is then there.
    """
    if name != root_doc:
        return
    (text,) = source
    _before, _heading, list_of_pages = text.partition("## Documentation")
    links = re.findall(r"\]\(([\w/-]+)\.md", list_of_pages)
    pages = dict.fromkeys(links)  # each once
    contents = ["", "```{toctree}", ":hidden:", "", *pages, "```", ""]
    source[:] = [text + "\n".join(contents)]


def setup(app) -> None:
    app.connect("source-read", add_contents)
