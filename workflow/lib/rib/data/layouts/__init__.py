"""One module per disk layout of an archive.

A layout module defines

    items(dataset: rib.data.images.DatasetSource, *, <settings>)

which yields `rib.data.images.Item` in an order that depends only on the archives and the label
space. Keyword arguments are the keys of an entry's `settings`: `margin: float` for `settings:
{margin: 0.06}`. They are optional if they have a default, and checked against their annotations
(rib.base.plugins.checked_settings).
"""
