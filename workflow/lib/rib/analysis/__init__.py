"""Analyses of rows, tables and features, one module each. No torch.

These arguments have the same meaning in all modules: `ood_datasets` are the out-of-distribution datasets that count in
RI. Folder names of `rows` (evaluation rows) and of `indexes` (one of each dataset) identify the run and the dataset.
`source_groups` excludes images that share a source with the target (rib.analysis.ri.ood_accuracies). `replicates`
and `seed` belong to the bootstrap (rib.analysis.bootstrap). `confidence` is the coverage of confidence intervals,
between 0 and 1. `conditions`, the last column of each table, states what else the numbers depend on. `table` and
`outputs` are the files to write, where a function does not return its tables for rib.analysis.writing to write.
"""
