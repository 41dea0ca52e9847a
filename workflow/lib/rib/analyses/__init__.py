"""Analyses of a run, a file each: what it reads, its tables and figures. No torch.

`describe(grid, paths, labels)` says what the analysis makes of a grid, or None if it has nothing to
show (see rib.config.analysis); the rules are made from it when the workflow is read. `tables`
returns its tables, and `draw_<figure>(<inputs>, *, <parameters>)` a figure and the rows it shows.
These functions import pandas and Matplotlib themselves, since each call of Snakemake reads the
files. Statistics are in rib.statistics, what figures share is in rib.figures.
"""
