# WiSE-FT curve: accuracy on the target against accuracy on the other datasets, for methods with one state per alpha.

if CURVES:

    REGISTRY.figure(
        "curves",
        inputs={"curves": TABLES["curves"]},
        settings={
            "method": CURVES[0],
            "method_label": GRID.methods[CURVES[0]].label,
            "models": MODEL_LABELS,
            "targets": TARGET_LABELS,
            "confidence": CONFIDENCE,
        },
    )
