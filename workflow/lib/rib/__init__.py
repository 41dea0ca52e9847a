"""ImageNet-RIB as a library: data, models, methods, training, evaluation, metrics, figures.

Layers, lowest first; a module imports from its own layer or below only (tests/test_layers.py):

    L0  io, code, classes, catalog, grid, job, warm, provenance, track   no torch
    L1  data/, models/
    L2  methods/
    L3  finetune, pretrain, merge, evaluate, features, stir, selection
    L4  metrics, analysis/, plan                                         no torch
    L5  figures/, report                                                 no torch
    L6  docs                                                             no torch
"""
