"""Entries that docs/adding.md shows."""

import re

import yaml

from tiny.projects.project import ROOT


def settings_of_example(layout, with_entries):
    """Settings of the entry in docs/adding.md with a layout, as the catalogue reads them.

    Args:
        layout: name of the layout.
        with_entries: the fixture of that name.
    """
    page = (ROOT / "docs/adding.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.S | re.M)
    (text,) = (block for block in blocks if f"layout: {layout}\n" in block)
    ((name, entry),) = yaml.safe_load(text.replace("sha256:...", f"sha256:{'0' * 64}")).items()
    # The family of the page is the user's own; that of the catalogue has other classes.
    changes = {"source": None, **entry, "family": "emoji"}
    dataset = with_entries(datasets={name: changes}).datasets[name]
    assert all(source["kind"] == "http" for source in dataset.archives)
    return dataset.settings
