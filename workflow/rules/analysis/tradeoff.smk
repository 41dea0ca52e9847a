# Trade-off between accuracy on the target and mRI, of every method and along averages of weights.

TRADEOFF = f"{REPORTS}/tables/tradeoff.csv"


def averages():
    """Methods that average the pretrained weights with those of one parent, by parent: their alpha, None for curves."""
    found = {}
    for name, method in GRID.methods.items():
        if not method.trains and len(method.parents) == 1 and (name in CURVES or "alpha" in method.settings):
            found.setdefault(method.parents[0], {})[name] = method.settings.get("alpha")
    return found


REGISTRY.figure(
    "tradeoff",
    inputs={"tradeoff": TRADEOFF},
    settings={
        **STYLED_MEANS,
        "methods": {name: {"label": method.label, **method.style} for name, method in GRID.methods.items()},
        "averages": averages(),
        **IMAGES_OF_TARGET,
    },
)
REGISTRY.analysis("tradeoff", tables={"tradeoff": TRADEOFF}, figures=["tradeoff"])


use rule compute_metrics as tabulate_tradeoff with:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **table_files("tradeoff", table=TRADEOFF),
    log:
        f"{LOGS}/tradeoff.log",
    params:
        cfg=tabulation("tradeoff:write_tradeoff", **MEANS_OF_RI),
