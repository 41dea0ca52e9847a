# Trade-off between accuracy on the target and mRI, of every method and along averages of weights.

# Methods that average the pretrained weights with those of one parent, with parent and alpha.
AVERAGES = {
    name: [method.parents[0], method.settings["alpha"]]
    for name, method in GRID.methods.items()
    if not method.trains and len(method.parents) == 1 and "alpha" in method.settings
}

REGISTRY.figure(
    "tradeoff",
    inputs={name: TABLES[name] for name in ("mri", "curves")},
    settings={
        **STYLED_MEANS,
        "methods": {name: {"label": method.label, **method.style} for name, method in GRID.methods.items()},
        "averages": {} if CURVES else AVERAGES,
        **ON_TARGET,
    },
)
