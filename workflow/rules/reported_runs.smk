# The runs that tables, figures and the page are of: all runs of the grid, in a preview the finished
# ones. Rules before this one make single runs, rules after it report on them.

WHOLE_GRID = GRID
# Each run of this grid is shown by itself.
SHOWN_GRID = GRID
# Of these runs a variant of each sweep is chosen.
SELECTABLE_RUNS = GRID.runs()

if PREVIEW:
    SHOWN_GRID = WHOLE_GRID.of_runs([Run.parse(name) for name in PREVIEW.finished])
    SELECTABLE_GRID = WHOLE_GRID.of_runs([Run.parse(name) for name in PREVIEW.selectable])
    SELECTABLE_RUNS = SELECTABLE_GRID.runs() if SELECTABLE_GRID.selection else []
    # From here on, GRID has the runs that means and comparisons are of.
    COMPARED_RUNS = [Run.parse(name) for name in PREVIEW.compared]
    GRID = replace(WHOLE_GRID.of_runs(COMPARED_RUNS), selection=SELECTABLE_GRID.selection)
    PRETRAINED_RUNS = {run.model: run for run in GRID.runs() if run.method == PRETRAINED}
    FIRST_MODEL = next(iter(GRID.models))
    CONDITIONS = f"{PREVIEW.description.note}; {CONDITIONS}"

REPORTED_RUNS = set(GRID.runs())


def labels_of(grid):
    """Labels of a grid's models, methods and targets, by name: {"models": {"net": "ResNet"}, ...}.

    Curves and merges over targets are no methods of figures and tables by target.
    """
    models = grid.models
    if PREVIEW:  # a model may have no fine-tuned run yet
        models = {name: model for name, model in models.items() if grid.methods_of(name)}
    not_by_target = [*CURVES, *grid.over_targets]
    methods = {name: method for name, method in grid.methods.items() if name not in not_by_target}
    return {
        "models": {name: model.label for name, model in models.items()},
        "methods": {name: method.label for name, method in methods.items()},
        "targets": {name: grid.datasets[name].label for name in grid.targets},
    }


def example_method(shown_methods, shared_methods):
    """The method that figures of one method show: fine-tuning if all models have it.

    Else it is the first that all models have. If there is none, a preview shows the first of those
    that most of its models have, and a full run has no figures.

    `shown_methods` are names of methods that a model has, and `shared_methods` those that all
    models have.
    """
    if "ft" in shared_methods:
        return "ft"
    if shared_methods:
        return shared_methods[0]
    if not (PREVIEW and shown_methods):
        return None

    def number_of_models(name):
        return sum(name in GRID.methods_of(model) for model in GRID.models)

    return max(shown_methods, key=number_of_models)
