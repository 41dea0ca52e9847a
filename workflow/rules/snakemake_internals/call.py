"""What the user asked of this call of Snakemake, and where to act before its graph is built.

Snakemake passes an object `workflow` to Snakefiles, of which only a few attributes are documented.
The others that are used here are noticed by tests/workflow/test_beside.py and
test_changed_results.py (cores, GPUs, before the graph, dry-run, targets), and test_fork_server.py
(limit of jobs per second).
"""

from collections.abc import Callable

DEFAULT_RATE_LIMIT = (100, 1)  # jobs, per this many seconds


def is_main_process(workflow) -> bool:
    """Whether the user started this process, so that it is no job (`is_main_process`)."""
    return workflow.is_main_process


def is_verbose(workflow) -> bool:
    """Whether the user asked for all of Snakemake's output (`output_settings`)."""
    return workflow.output_settings.verbose


def is_dry_run(workflow) -> bool:
    """Whether jobs are only listed (`dryrun`)."""
    return workflow.dryrun


def only_renews_times(workflow) -> bool:
    """Whether the call is `snakemake --touch` (`touch`)."""
    return workflow.touch


def starts_jobs(workflow) -> bool:
    """Whether this call runs jobs (`executor_plugin`).

    Dry-runs have an executor that runs nothing; calls such as `--summary` have none.
    """
    return workflow.executor_plugin is not None and not workflow.dryrun


def runs_jobs_here(workflow) -> bool:
    """Whether jobs run on this machine, not on a cluster (`local_exec`)."""
    return workflow.local_exec


def goes_on_after_a_failure(workflow) -> bool:
    """Whether jobs are started after one has failed: `--keep-going` (`execution_settings`)."""
    return workflow.execution_settings.keep_going


def targets_of(workflow) -> set[str]:
    """Rules and files that the user asked for; none stands for all results (`dag_settings`)."""
    return set(workflow.dag_settings.targets)


def gpus_of(workflow) -> int | None:
    """GPUs of `--resources gpu=N`; None if the user set no number (`global_resources`)."""
    gpus = workflow.global_resources.get("gpu")
    return None if gpus is None else gpus.value


def stated_cores_of(workflow) -> int | None:
    """Cores of `--cores N`; None where none are set, as on a cluster (`_cores`)."""
    return workflow._cores


def before_graph(workflow, action: Callable[[], None]) -> None:
    """Call `action` once, right before Snakemake builds the graph.

    When rules are read, Snakemake does not know yet what the user asked for; and `onstart` comes
    after the graph was built, and never in a dry-run. So this replaces `_prepare_dag`, which
    Snakemake calls in between. Of several actions, the last that was given comes first.
    """
    prepare_graph = workflow._prepare_dag

    def act_and_prepare_graph(*arguments, **settings):
        """Do what was asked for, and then what Snakemake would do here."""
        vars(workflow).pop("_prepare_dag", None)  # from here on, it is Snakemake's own again
        action()
        return prepare_graph(*arguments, **settings)

    workflow._prepare_dag = act_and_prepare_graph


def lift_rate_limit(workflow) -> None:
    """Remove Snakemake's default limit of 100 jobs per second (`scheduling_settings`).

    A limit by the user is kept. With the limit, every finished job adds a timer that checks for
    ready jobs each second; after 600 jobs the timers used half a processor.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == DEFAULT_RATE_LIMIT:
        workflow.scheduling_settings.max_jobs_per_timespan = None
