"""Analyses of a run, a folder for each topic. No torch.

- `describe.py`: what the analysis reads and makes, and how the page shows it.
  `describe(grid, paths, labels)` declares it (rib.schema.analysis), or returns None if there is
  nothing to show; the rules are made from it. Each call of Snakemake reads these files, so they
  import neither pandas nor Matplotlib.
- `tables.py`: `tables(inputs)` returns the tables.
- `figure.py`: `draw_<figure>(<inputs>, *, <parameters>)` returns a figure and the rows in it.

A folder may lack the last two, and has further files where a topic needs them.
"""
