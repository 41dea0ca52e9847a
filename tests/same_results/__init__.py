"""Do two commits give the same results? `make same-results BEFORE=<commit>`.

`export` runs a few small grids on a commit and writes their results in a neutral form (`form`),
`compare` compares the neutral forms of two commits, and `__main__` is the command.
"""
