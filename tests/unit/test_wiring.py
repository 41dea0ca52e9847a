"""What the rules give to their jobs: inputs, settings and code, as Snakemake reads them.

Nothing here restates a rule. The rules are read for a few small grids, and what must
hold of every job is asked of each of them: no input is always empty, whatever is read makes the job
run again when it changes, the script gives its stage all that this asks for, and the code digest
has the files that the settings name.
"""

import contextlib
import importlib.util
import inspect
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pandas as pd
import pytest
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from rib.base.params import from_params, to_params
from rib.base.plugins import LIBRARY
from rib.data.data_settings import (
    DownloadSettings,
    PreparationSettings,
    SplitSettings,
)
from rib.evaluation.evaluation_settings import (
    EvaluationSettings,
    FeatureSettings,
    FisherSettings,
    InversionSettings,
    LabelCheckSettings,
    NetworkSettings,
)
from rib.grid.figure_settings import FiguresSettings
from rib.grid.paths import manifest_of
from rib.models.model_settings import ConversionSettings, TextSettings
from rib.report.report_settings import ExportSettings, PageSettings, PaperSettings
from rib.statistics.inputs import Inputs
from rib.statistics.statistics_settings import GridTableSettings
from rib.training.training_settings import FineTuningSettings, PretrainingSettings
from tiny.projects.wiring import ROOT

SCRIPTS = ROOT / "workflow/scripts"
ANALYSES = [*(LIBRARY / "analyses").glob("*/tables.py")]
RULES = [*(ROOT / "workflow/rules").rglob("*.smk")]
# Rules without a digest of their code: what they write is pinned by a digest.
WITHOUT_CODE = {"download"}


@pytest.fixture(scope="module")
def jobs(wiring):
    """Jobs of all grids."""
    return [job for jobs_of_grid in wiring.values() for job in jobs_of_grid]


def jobs_of(jobs, rule):
    return [job for job in jobs if job.rule == rule]


def jobs_with(jobs, script):
    return [job for job in jobs if job.script == script]


def test_the_grids_of_these_tests_have_jobs_of_every_rule(jobs):
    names = re.compile(r"^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:", re.MULTILINE)
    written = {name for file in RULES for name in names.findall(file.read_text())}
    described = {job.rule for job in jobs}
    analyses = {file.parent.name for file in ANALYSES}
    assert len(analyses) > 15
    assert written | {f"analyse_{name}" for name in analyses} <= described


# Inputs that rules have from a function that they share with others, and to which these jobs give
# nothing.
NO_MERGE = {"selection", "fisher", "fisher_manifests"}
NEVER_GIVEN = {
    # of pretrained models and of what was trained, not of merges
    "compute_fisher": NO_MERGE | {"dataset_proxy"},
    "evaluate_snapshots": NO_MERGE | {"checkpoint_manifests"},
    # they choose coefficients of checkpoints, without Fisher information; both protocols of
    # `select` have no proxy here
    "select_coefficients": NO_MERGE | {"target_proxy"},
    # the merges that these grids score so need no Fisher information and are not selected
    "evaluate_select_split": NO_MERGE | {"proxy"},
    "evaluate_over_targets": NO_MERGE | {"proxy"},
    # no merge of the grids with inversions is selected
    "invert_representation": {"selection"},
    "cross_inversions": {"selection"},
    # the model of images and texts is fine-tuned without splits alone
    "export_open_clip_run": NO_MERGE | {"dataset_split", "splits"},
    # the tokenizer of the model alone
    "export_run": {"archive"},
    # nothing is trained
    "import_checkpoint": {
        *("target_proxy", "reference", "reference_split", "checkpoint_manifests", "checkpoints"),
    },
    # a protocol with splits and a proxy that is a part of a dataset do not meet here
    "split_dataset": {"dataset_proxy"},
}


def test_no_input_of_a_rule_is_always_empty(jobs):
    # given: the paths that each input has in any job
    paths = defaultdict(set)
    for job in jobs:
        for name, some in job.inputs.items():
            paths[job.rule, name].update(some)
    # then: those without any are the ones that are known not to apply
    always_empty = defaultdict(set)
    for (rule, name), all_paths in paths.items():
        if not all_paths:
            always_empty[rule].add(name)
    assert always_empty == NEVER_GIVEN


def test_a_job_runs_again_when_what_it_reads_is_made_anew(wiring):
    """Large files are `ancient`.

    Then the job must watch another output of the job that makes them, or of one after it.
    """
    unwatched = set()
    for jobs_of_grid in wiring.values():
        maker = {path: job for job in jobs_of_grid for path in job.outputs.values()}
        for job in jobs_of_grid:
            behind = outputs_behind(job, maker)
            for name, paths in job.inputs.items():
                stale = [
                    path
                    for path in paths
                    if path in maker and not behind & {*maker[path].outputs.values()}
                ]
                if stale:
                    unwatched.add((job.rule, name))
    assert unwatched == set()


def outputs_behind(job, maker):
    """Files that a job watches, and those that the jobs which make them watch, and so on."""
    behind, waiting = set(), list(job.watched)
    while waiting:
        path = waiting.pop()
        if path not in behind:
            behind.add(path)
            waiting.extend(maker[path].watched if path in maker else [])
    return behind


class StageReachedError(Exception):
    """The script has come to the call of its stage."""


# Scripts that make the call of their stage in the open, with the settings that they read back.
STAGES = {
    "download": ("rib.data.fetch.download:download", DownloadSettings),
    "prepare": ("rib.data.prepare:prepare", PreparationSettings),
    "split_dataset": ("rib.data.split_dataset:split_dataset", SplitSettings),
    "convert_model": ("rib.models.convert:convert", ConversionSettings),
    "store_text": ("rib.models.convert:store_text", TextSettings),
    "pretrain_model": ("rib.training.pretrain:pretrain", PretrainingSettings),
    "finetune": ("rib.training.finetune:finetune", FineTuningSettings),
    "select_coefficients": (
        "rib.evaluation.select_coefficients:select_coefficients",
        NetworkSettings,
    ),
    "evaluate": ("rib.evaluation.evaluate:evaluate", EvaluationSettings),
    "check_labels": (
        "rib.evaluation.first_predictions:predict_first_images",
        LabelCheckSettings,
    ),
    "compute_features": ("rib.evaluation.features:compute_features", FeatureSettings),
    "compute_epoch_features": (
        "rib.evaluation.features:compute_epoch_features",
        FeatureSettings,
    ),
    "compute_fisher": ("rib.evaluation.compute_fisher:compute_fisher", FisherSettings),
    "invert_representation": ("rib.evaluation.inversion:invert_run", InversionSettings),
    "cross_inversions": ("rib.evaluation.inversion:cross_features", InversionSettings),
    "compute_metrics": ("rib.statistics.metrics:write_metrics", GridTableSettings),
    "export_run": ("rib.evaluation.export:export_network", ExportSettings),
    "draw_figures": ("rib.figures:write_figures", FiguresSettings),
    "write_page": ("rib.report.page:write_page", PageSettings),
    "paper": ("rib.report.paper:paper_list", PaperSettings),
}
# Scripts with settings that are a dictionary, with its keys.
KEYS = {
    "analyse": {"analysis", "inputs", "params", "without_fit", "conditions", "code"},
    "measure_distances": {"datasets", "code"},
    "compress_datasets": {"view", "excludes_proxy", "split", "megabytes", "code"},
}
STAGES_OF_KEYS = (
    "rib.statistics.writing:make_tables",
    "rib.analyses.distances.measure:distances_of",
    "rib.analyses.distances.compression:compression_of",
)


def test_a_script_reads_the_settings_that_its_rule_built(jobs):
    scripts = set()
    for job in jobs:
        if job.script in STAGES:
            scripts.add(job.script)
            _, kind = STAGES[job.script]
            assert to_params(from_params(kind, job.settings)) == job.settings, job.rule
    assert scripts == {*STAGES}
    assert scripts | {*KEYS, ""} == {job.script for job in jobs}


@pytest.mark.parametrize("script", KEYS)
def test_a_script_reads_each_setting_of_a_dictionary(jobs, script):
    for job in jobs:
        if job.script == script:
            assert job.settings.keys() == KEYS[script]
    text = (SCRIPTS / f"{script}.py").read_text()
    for key in KEYS[script] - {"code"}:
        assert f'["{key}"]' in text


def test_snakemake_sees_each_change_of_a_parameter_since_all_are_plain_json(jobs):
    # Snakemake stores the repr of a parameter, which may be the same for two other objects.
    assert [(job.rule, job.not_json) for job in jobs if job.not_json] == []


def test_settings_are_read_without_torch():
    """As rules do. Data frames and arrays of Arrow would slow down each start of the workflow."""
    modules = {kind.__module__ for _, kind in STAGES.values()}
    source = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"torch", "timm", "numpy", "pandas", "pyarrow"} & {*done.stdout.split()}


@pytest.fixture
def script_module(monkeypatch):
    """The modules that scripts share, of which the first is returned.

    Their folder is not left among those of imports.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    shared = []
    for name in ("_run", "_inputs", "_networks"):
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        shared.append(module)
    # what scripts read of a file that is not there
    monkeypatch.setattr("rib.evaluation.networks.read_json", lambda _: {"coefficients": {}})
    return shared[0]


class Calls:
    """What any job gave to functions of stages, and to the dataclasses that these take."""

    def __init__(self):
        self.given_to = defaultdict(set)  # names of parameters or fields, by function or class

    def note(self, function, arguments):
        """Note the arguments of a call; those that lack one are a TypeError."""
        inspect.signature(function).bind(**arguments)
        self.given_to[function].update(arguments)
        for argument in arguments.values():
            self.note_fields(argument)

    def note_fields(self, argument):
        """Note which fields of a dataclass differ from their defaults."""
        if isinstance(argument, list | tuple):
            for element in argument:
                self.note_fields(element)
        elif is_dataclass(argument) and not inspect.isclass(argument):
            for field in fields(argument):
                value = getattr(argument, field.name)
                is_default = field.default_factory is not MISSING and value == {}
                if value != field.default and not is_default:
                    self.given_to[type(argument)].add(field.name)
                self.note_fields(value)


@pytest.fixture
def asked(script_module, monkeypatch):
    """Runs the script of a job up to the call of its stage; what all jobs gave to functions.

    A job that does not give what the function requires is a TypeError.
    """
    calls = Calls()

    @contextlib.contextmanager
    def run(snakemake, **_):
        yield {name: Path(path) for name, path in snakemake.output.items()}

    def checked(function):
        def call(*args, **kwargs):
            calls.note(function, inspect.signature(function).bind(*args, **kwargs).arguments)
            raise StageReachedError

        return call

    monkeypatch.setattr(script_module, "run", run)
    for stage in (*(stage for stage, _ in STAGES.values()), *STAGES_OF_KEYS):
        monkeypatch.setattr(stage.replace(":", "."), checked(pkgutil.resolve_name(stage)))

    def run_script(job):
        inputs = {
            name: paths if job.is_list[name] else paths[0] for name, paths in job.inputs.items()
        }
        snakemake = SimpleNamespace(
            rule=job.rule,
            input=InputFiles(fromdict=inputs),
            output=OutputFiles(fromdict=job.outputs),
            params=Params(
                fromdict={
                    "cfg": job.settings,
                    "source": {"kind": "http"},
                    "folders": [],
                    "monitor": {"datasets": [], "view": job.settings.get("view")},
                }
            ),
            wildcards=Wildcards(fromdict=job.wildcards),
            log=Log(["logs/x.log"]),
            config={},
            threads=2,
            scriptdir=str(SCRIPTS),
        )
        with contextlib.suppress(StageReachedError):
            runpy.run_path(str(SCRIPTS / f"{job.script}.py"), {"snakemake": snakemake})
            raise AssertionError(f"{job.script}.py ends without a call of its stage")

    return run_script, calls.given_to


# Arguments and fields that no rule gives: constants that tests change.
NOT_OF_RULES = {
    "Watch": {"warned"},
    "DatasetFiles": {"pixels"},
    "download": {"partial"},
}


def test_every_stage_is_given_all_that_it_asks_for(wiring, asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run_script, given_to = asked
    for jobs_of_grid in wiring.values():
        # when: scripts run up to the call of their stage
        for job in jobs_of_grid:
            if job.script:
                run_script(job)
    # then: all that is required is given, see `asked`, and what has a default is given by some job
    not_given = {}
    for function, names in given_to.items():
        if lacking := set(inspect.signature(function).parameters) - names:
            not_given[function.__name__] = lacking
    assert not_given == NOT_OF_RULES


class NotedInputs(Inputs):
    """Inputs of an analysis without files; `read` has the names of those that it asked for."""

    def __init__(self, job):
        super().__init__(
            {
                name: job.inputs[name] if job.is_list[name] else job.inputs[name][0]
                for name in job.settings["inputs"]
            },
            NotedParams(job.settings["params"]),
        )
        object.__setattr__(self, "read", set())

    def path(self, name):
        self.read.add(name)
        return super().path(name)

    def paths(self, name):
        self.read.add(name)
        return super().paths(name)

    def table(self, name):
        self.path(name)
        return pd.DataFrame()


class NotedParams(Mapping):
    """Parameters of an analysis; `read` has the names of those that it asked for."""

    def __init__(self, params):
        self.params = params
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return self.params[name]

    def __iter__(self):
        return iter(self.params)

    def __len__(self):
        return len(self.params)


def computations(module):
    """Functions of the library's statistics and analyses that a file of tables calls, by name."""
    for name, function in vars(module).items():
        is_own = name == "tables" or name.startswith("_") or not inspect.isfunction(function)
        if not is_own and function.__module__.startswith(("rib.statistics.", "rib.analyses.")):
            yield name, function


# The table of costs is made again with that of mRI.
NOT_READ = {("cost", "mri")}


def test_an_analysis_reads_all_that_it_asks_for(jobs, monkeypatch):
    calls = Calls()

    def checked(function):
        def call(*args, **kwargs):
            calls.note(function, inspect.signature(function).bind(*args, **kwargs).arguments)
            return MagicMock()

        return call

    not_read = set()
    for job in jobs_with(jobs, "analyse"):
        # given an analysis that computes nothing
        module = importlib.import_module(f"rib.analyses.{job.settings['analysis']}.tables")
        inputs = NotedInputs(job)
        with monkeypatch.context() as context:
            for name, function in computations(module):
                context.setattr(module, name, checked(function))
            context.setattr("rib.base.files.table_text", MagicMock())
            # when: a computation that isn't given what it requires is a TypeError
            made = module.tables(inputs)
        # then
        if isinstance(made, dict):
            files = {name if "." in name else f"{name}.csv" for name in made}
            assert files == job.outputs.keys() - {"provenance"}, job.rule
        analysis = job.rule.removeprefix("analyse_")
        read_by_the_writer = {"fit"}
        names = inputs.files.keys() - inputs.read - read_by_the_writer
        names |= inputs.params.keys() - inputs.params.read
        not_read.update((analysis, name) for name in names)
    assert not_read == NOT_READ
    assert len(calls.given_to) > 15


def test_a_part_of_a_large_target_is_trained_for_the_steps_of_the_familys_ceiling(wiring):
    lengths_of_target = {}
    for job in jobs_of(wiring["photos"], "finetune"):
        training = job.settings["training"]
        length = (training["epochs"], training["steps"])
        lengths_of_target.setdefault(job.wildcards["target"], set()).add(length)
    assert lengths_of_target == {
        "imagenet_r": {(10, None)},
        "imagenet_c": {(None, 7960)},
        "imagenet_train": {(None, 7960)},
    }


def test_in_a_family_that_expects_a_gpu_a_job_does_so_if_it_asks_for_one(wiring):
    """A model is converted on a GPU only if a head is fitted; SLURM gives no GPU to other jobs."""
    jobs = [*wiring["photos"], *wiring["photos, held out"]]
    expecting = {
        job.settings["head"]: job.settings["compute"]["expects_gpu"]
        for job in jobs_of(jobs, "convert_model")
    }
    assert expecting == {"zero_shot": False, "published": False, "fitted": True}
    assert all(job.settings["compute"]["expects_gpu"] for job in jobs_of(jobs, "finetune"))


def test_a_choice_of_rates_takes_only_a_methods_own_rate_out_of_its_name(wiring):
    (choice,) = jobs_of(wiring["clothes, held out"], "analyse_learning_rates")
    swept_methods = choice.settings["params"]["swept_methods"]
    swept_as = {name: swept["method"] for name, swept in swept_methods.items()}
    assert swept_as["linear_probe-lr0.015"] == "linear_probe"
    assert swept_as["lp_ft-lr0.01"] == "lp_ft-lr0.01"
    assert swept_as["lp_ft-lr0.015"] == "lp_ft-lr0.015"


def test_tables_know_which_rates_were_not_chosen_for_a_network(wiring):
    for grid, other_rates in (("clothes, held out", {"own_cnn": ["l2_sp"]}), ("drawings", {})):
        metrics = jobs_of(wiring[grid], "compute_metrics")
        assert metrics
        for job in metrics:
            assert job.settings["fit"]["other_rates"] == other_rates


def test_every_job_with_results_has_a_digest_that_begins_with_its_script(jobs):
    for job in jobs:
        if job.script and job.rule not in WITHOUT_CODE:
            assert job.code[:1] == [f"scripts/{job.script}.py"], job.rule


def test_a_digest_has_the_files_that_the_settings_name(jobs):
    """What settings name: an algorithm, or a dataset's layout."""
    kinds = set()
    for job in jobs:
        for kind, file in named_code(job).items():
            kinds.add((job.script, kind))
            assert file in job.code, (
                f"{job.rule}: {file} may change and the job would not run again"
            )
    assert kinds == {
        *(
            ("finetune", "algorithm"),
            ("select_coefficients", "algorithm"),
        ),
        *(("evaluate", "algorithm"), ("export_run", "algorithm")),
        *(
            ("compute_features", "algorithm"),
            ("invert_representation", "algorithm"),
            ("cross_inversions", "algorithm"),
        ),
        ("prepare", "layout"),
    }


def named_code(job):
    """Files of code that a job's settings name, by the setting."""
    named = {}
    algorithm = job.settings.get("algorithm")
    if job.settings.get("merge"):
        algorithm = job.settings["merge"]["algorithm"]
    if algorithm:
        named["algorithm"] = str(Path(algorithm).relative_to(LIBRARY))
    if "layout" in job.settings and job.script == "prepare":
        named["layout"] = str(Path(job.settings["layout"]).relative_to(LIBRARY))
    return named


def test_a_digest_of_figures_has_their_modules_and_their_style(jobs):
    drawings = jobs_with(jobs, "draw_figures")
    assert {job.rule for job in drawings} >= {"draw_figures", "draw_examples", "draw_distances"}
    for job in drawings:
        modules = {figure["module"] for figure in job.settings["figures"].values()}
        files = {module.removeprefix("rib.").replace(".", "/") + ".py" for module in modules}
        assert set(job.code) == {"scripts/draw_figures.py", "figures/rib.mplstyle", *files}


def test_a_digest_of_tables_has_the_file_of_their_analysis(jobs):
    for job in jobs_with(jobs, "analyse"):
        name = job.rule.removeprefix("analyse_")
        assert job.settings["analysis"] == name
        assert job.code == ["scripts/analyse.py", f"analyses/{name}/tables.py"]


def test_a_job_of_figures_watches_every_file_that_it_reads(jobs):
    for job in jobs_with(jobs, "draw_figures"):
        files = {job.settings["fit"]} - {None}
        for inputs in job.settings["inputs"].values():
            for path_or_paths in inputs.values():
                files.update([path_or_paths] if isinstance(path_or_paths, str) else path_or_paths)
        assert files <= {*job.inputs["files"]}, job.rule
        assert {manifest_of(file) or file for file in files} == set(job.watched), job.rule


def test_who_has_tables_alone_can_draw_figures_of_tables(jobs):
    for job in jobs_of(jobs, "draw_figures"):
        assert all("/tables/" in path for path in job.watched)


def test_a_digest_of_the_page_has_its_templates(jobs):
    """Digests follow imports, and no module imports a template."""
    pages = jobs_with(jobs, "write_page")
    assert pages
    named = templates_named_in(LIBRARY / "report/page.py")
    for job in pages:
        assert set(job.code[1:]) == {f"report/{name}" for name in named}


def templates_named_in(file):
    """Names of templates in a file of rib.report, and of those that they include."""
    named = set()
    for name in re.findall(r"[\w.]+\.jinja", file.read_text()):
        named |= {name, *templates_named_in(file.with_name(name))}
    return named
