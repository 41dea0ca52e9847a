"""One module per disk layout of an archive.

A layout module defines

    items(dataset: rib.data.images.DatasetSource, *, <its own settings>)

which yields `rib.data.images.Item` in an order that depends only on the archives and the label
space. Its settings are the keys of an entry's `settings`; those with a default are optional. They
are checked against their annotations when a dataset is prepared
(rib.base.plugins.checked_settings).
"""
