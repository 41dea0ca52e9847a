# Estimate the cost of the grid before it is run.


use rule status as plan with:
    log:
        "logs/plan.log",
    params:
        cfg=lambda w: {
            "function": "rib.reporting.cost_estimate:print_plan",
            "config": CONFIG,
            "catalog": FOLDERS,
            "results": f"results/{FAMILY}",
        },
