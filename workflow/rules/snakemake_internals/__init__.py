"""All that this workflow uses of Snakemake beyond its documented interface.

An update of Snakemake may change any of it. Each function therefore says which attribute it uses
and why, and each module which test notices a change. tests/workflow/test_tiny_run.py runs all
modules but those of a dry-run.
"""
