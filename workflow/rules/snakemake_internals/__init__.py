"""What this workflow still uses of Snakemake beyond its documented interface.

An update of Snakemake may change any of it. So no other module uses it, each function says which
attribute it needs and why, and each module which tests notice a change.
"""
