"""Analyses of rows, tables and features, one module each. No torch.

These arguments have the same meaning in all modules:

    ood_datasets    the out-of-distribution datasets that count in RI
    rows, indexes   evaluation rows, and one index of each dataset; names of their folders identify
                    the run and the dataset
    source_groups   excludes images that share a source with the target, see
                    rib.statistics.ri.ood_accuracies
    replicates      and `seed` belong to the bootstrap, see rib.statistics.bootstrap
    confidence      coverage of confidence intervals, between 0 and 1
    table, outputs  the files to write, where a function does not return its tables for
                    rib.statistics.writing to write

`conditions`, the last column of each table, states what else the numbers depend on.
"""
