"""Statistics that several analyses use: counts, RI, bootstrap, contrasts, tables. No torch.

Arguments that have the same meaning in all modules:

    ood_datasets    out-of-distribution datasets that count in RI
    rows, indexes   evaluation rows, and one index per dataset, whose folder names the dataset
    source_groups   group of each dataset, such as {"noto": "emoji", "twemoji": "emoji"}; datasets
                    of a group were made from the same source images, and images of the target's
                    sources do not count in its RI. None: all images count
    replicates      number of bootstrap draws, which `seed` starts
    confidence      coverage of confidence intervals, between 0 and 1
    outputs         file to write for each table, such as {"mri": Path("mri.csv")}
    conditions      last column of each table: what else the numbers depend on
"""
