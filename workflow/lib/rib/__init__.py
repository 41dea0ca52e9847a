"""ImageNet-RIB as a library: data, models, methods, evaluation, training, analyses, figures.

Packages, lowest first; a package imports from those above it in this list, never from below (pyproject.toml has the contract):

    base        errors, progress, files, plugins
    config      configuration and catalogue: what is run on what
    records     provenance records: written, compared, shared
    jobs        how a job runs; no result depends on it
    data        archives, preparation, splits
    models      networks, heads, checkpoints
    methods     one fine-tuning algorithm per file
    evaluation  scores, features, inversions, merges
    training    the training loops
    analysis    tables from rows and features
    figures     figures from tables
    reporting   the page, status, cost estimate, generated documentation

Only models, methods, evaluation and training import torch.
"""
