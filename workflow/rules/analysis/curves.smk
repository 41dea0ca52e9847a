# WiSE-FT's curve: accuracy on the target against accuracy off it, where the grid has a method with a state per alpha.

CURVE = CURVES[0] if CURVES else None

analysis(
    "curves",
    tables={},
    figures=(
        {
            "curves": (
                {"curves": TABLES["curves"]},
                {
                    "method": CURVE,
                    "method_label": GRID.methods[CURVE].label,
                    "models": LABELS,
                    "targets": TARGET_LABELS,
                    "confidence": CONFIDENCE,
                },
            ),
        }
        if CURVES
        else {}
    ),
    optional=False,
)
