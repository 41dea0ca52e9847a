"""One module per disk layout of an archive.

A layout module defines

    items(archives, *, space, geometry, dataset, source_group, icons, exclude, <its own settings>)

which yields `rib.data.images.Item` in an order that depends on the archives and the class space only. The
catalogue's `settings` of a dataset are passed as keywords.
"""
