"""One module per disk layout of an archive.

A layout module defines

    items(archive, *, space, geometry, dataset, source_group, icons, exclude, <its own settings>)

which yields `rib.data.images.Item` in an order that depends on the archive and the class space only. The
catalogue's `settings` of a dataset are passed as keywords.
"""
