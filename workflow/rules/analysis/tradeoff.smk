# Trade-off between accuracy on the target and mRI, of every method and along averages of weights.

# Methods that average the pretrained weights with those of one parent, with parent and alpha.
AVERAGES = {
    name: [method.parents[0], method.settings["alpha"]]
    for name, method in GRID.methods.items()
    if method.form in MERGES and len(PARENTS[name]) == 1 and "alpha" in method.settings
}

REGISTRY.figure(
    "tradeoff",
    analysis="tradeoff",
    question="survived",
    inputs={name: TABLES[name] for name in ("mri", "curves", "in_distribution") if name in TABLES},
    settings={
        **STYLED_MEANS,
        "methods": METHOD_STYLES
        | {
            name: {"label": GRID.methods[name].label, **GRID.methods[name].style} for name in CURVES
        },
        "averages": {} if CURVES else AVERAGES,
        **ON_TARGET,
    },
)
