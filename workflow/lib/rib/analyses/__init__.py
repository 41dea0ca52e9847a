"""Analyses of a run, a folder each, with all that belongs to it. No torch.

`settings.py` has the settings of the jobs that make its tables, `tables.py` or other modules the
functions, `tables.yaml` says how the page shows the tables, and each figure has a module
`<figure>.py` with the function `draw` and a caption `<figure>.rst`. Its rules are in
workflow/rules/analysis/<name>.smk, and each rule has a script in workflow/scripts. Statistics that
several analyses share are in rib.statistics, and what figures share is in rib.figures.

A figure's `draw(<inputs by name>, *, <settings>)` returns the figure and the rows it shows. One
that compares training subsets sets EVERY_SIZE, one without methods that have unfinished runs
FINISHED_ONLY. One that names the methods of each model by itself sets MARKS_RUNS; its `draw` has
the argument `unfinished`, pairs of a model and a method with an unfinished run. These settings have
the same meaning in all figures: `models`, `methods`, `targets` and `datasets` give labels, or
label, colour and marker, in display order; `model`, `method` and `target` select an example, with
labels `..._label`, or stand together in `example`; `confidence` is the coverage of confidence
intervals, 0 to 1.
"""
