# What a preview leaves out of the tables, figures and files that are registered; a full run leaves
# out nothing.

from preview_files import PreviewFiles

HAS_CELLS = HAS_FIGURES
# How far the grid is, for the page of a preview.
PREVIEW_DESCRIPTION = None

if PREVIEW:
    PREVIEW_FILES = PreviewFiles(workflow, METRICS, LOGS, PREVIEW)
    REASON = PREVIEW_FILES.reason_without(TABLES["mri"])
    if REASON:
        raise UserError(f"preview: there are no tables: {REASON}")
    if not HAS_FIGURES:
        REGISTRY.figures.clear()
    PREVIEW_FILES.keep_possible_files(REGISTRY)
    HAS_CELLS = HAS_FIGURES and PREVIEW_FILES.can_have(CELLS)
    PREVIEW_DESCRIPTION = replaced(PREVIEW.description, left_out=PREVIEW_FILES.left_out)
