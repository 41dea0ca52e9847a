"""Analyses of a run, one file each: inputs, tables and figures. No torch.

`describe(grid, paths, labels)` declares what the analysis makes of a grid (rib.config.analysis), or
returns None if there is nothing to show; the rules are made from it. `tables` returns the tables,
and `draw_<figure>(<inputs>, *, <parameters>)` a figure and the rows in it. Each call of Snakemake
reads these files, so only functions import pandas and Matplotlib. rib.statistics computes.
"""
