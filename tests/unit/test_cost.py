"""What an mRI costs, from records made up; histories gathered."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest

from rib.analyses.cost.tables import cost_of, cost_table, jobs_of
from rib.analyses.training.tables import training_table
from rib.catalog.catalog import Catalog
from rib.records import provenance
from rib.schema.run import METHODS
from tiny.projects.records import FACTS
from tiny.tables.tables import write

ROOT = Path(__file__).parents[2]
PARENTS = {"ft": [], "wise": ["ft"], "probe": [], "lp_ft": ["probe"]}


TRAINING_SECONDS = {"ft": 100.0, "probe": 10.0, "lp_ft": 50.0}  # with seed 0
MERGE_SECONDS = 0.5
EVALUATION_SECONDS = {"s": 1.0, "t": 2.0}  # by group of datasets
PRETRAINED_SECONDS = 5.0  # of the pretrained model's evaluation
FISHER_SECONDS = 7.0
TRAINING_IMAGES = 400
JOB_MEGABYTES = 2
SEEDS = (0, 1)
TARGETS = ("a", "b")
PRETRAINED_RECORD = "evaluate/net/none/pretrained/all/0/s.provenance.json"
CONDITIONS = "protocol paper"
# Seconds of an mRI, over the targets; of training and merges on average over the seeds.
FT_TRAINING = 300  # 100 and 200 s on each target
PROBE_TRAINING = 30
LP_FT_TRAINING = 150  # without the probe that it starts from
MERGE = 1
EVALUATION = 11  # 1 and 2 s on each target, and the pretrained model's


def texts_by_name(paths_by_name):
    """Paths as texts."""
    return {name: [str(path) for path in paths] for name, paths in paths_by_name.items()}


def arguments_of(records, fisher=None, shared_fisher=None, parents=PARENTS, evaluated=None):
    """Arguments of `cost_of`; every method is evaluated alone by default."""
    return {
        "records": [str(path) for path in records],
        "evaluated": evaluated or {name: [name] for name in ("pretrained", *PARENTS)},
        "fisher": texts_by_name(fisher or {}),
        "shared_fisher": texts_by_name(shared_fisher or {}),
        "parents": parents,
    }


def write_record(path, seconds, device=None, images=None, **facts_of_job):
    """Write a job's record and, with a device, its manifest; gives the record's path.

    The job has written 2 MB, in two files.

    Args:
        seconds: that count, of the processor or of the GPU; the others are many more.
        images: of its manifest, which has none if this is None.
        facts_of_job: of the record, such as `peak_memory=2_000_000` in bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds_that_do_not_count = 1e6
    if device == "cuda":
        times = {"seconds": seconds, "cpu_seconds": seconds_that_do_not_count}
    else:
        times = {"cpu_seconds": seconds, "seconds": seconds_that_do_not_count}
    facts = {
        **FACTS,
        "log": "l",
        "inputs": {},
        "outputs": {},
        "sizes": {"results/a": 1_500_000, "results/b": 500_000},
        **times,
        **facts_of_job,
    }
    provenance.write(path, facts)
    if device is not None:
        manifest = {"device": device}
        if images is not None:
            manifest["images"] = images
        manifest_path = path.with_name(path.name.replace("provenance", "manifest"))
        manifest_path.write_text(json.dumps(manifest))
    return str(path)


@pytest.fixture
def base(tmp_path):
    """The folder of the results of a family with a protocol."""
    return tmp_path / "results/f/paper"


@pytest.fixture
def records(base):
    """Records of one model, of which evaluation takes 1 s, 2 s on the second group.

    The pretrained model's evaluation takes 5 s and is the first; seed 1 trains twice as long.
    """
    paths = [write_record(base / PRETRAINED_RECORD, PRETRAINED_SECONDS, "cpu")]
    for target, seed, method in itertools.product(TARGETS, SEEDS, PARENTS):
        run = f"net/{target}/{method}/all/{seed}"
        if method in TRAINING_SECONDS:
            training_record = base / f"finetune/{run}/provenance.json"
            seconds = TRAINING_SECONDS[method] * (1 + seed)
            paths.append(write_record(training_record, seconds, "cpu", TRAINING_IMAGES))
        else:
            merge_record = base / f"merge/{run}/provenance.json"
            paths.append(write_record(merge_record, MERGE_SECONDS))
        for group, seconds in EVALUATION_SECONDS.items():
            evaluation_record = base / f"evaluate/{run}/{group}.provenance.json"
            paths.append(write_record(evaluation_record, seconds, "cpu"))
    return paths


def tabulate(records, parents=PARENTS):
    """The table of costs of some jobs, by method."""
    return cost_table(jobs_of(records), parents).set_index("method")


def record_with(part, records):
    """The one record that has this part in its path."""
    (path,) = [path for path in records if part in path]
    return path


def test_a_methods_cost_has_what_it_needs_and_is_the_mean_over_seeds(records):
    # when
    table = tabulate(records)
    # then
    assert table["finetune"].to_dict() == {
        "ft": FT_TRAINING,
        "wise": FT_TRAINING,
        "probe": PROBE_TRAINING,
        "lp_ft": PROBE_TRAINING + LP_FT_TRAINING,
    }
    assert table["merge"].to_dict() == {"ft": 0, "wise": MERGE, "probe": 0, "lp_ft": 0}
    assert table["evaluate"].to_dict() == dict.fromkeys(PARENTS, EVALUATION)
    assert table["seconds"].to_dict() == {
        "ft": FT_TRAINING + EVALUATION,
        "wise": FT_TRAINING + MERGE + EVALUATION,
        "probe": PROBE_TRAINING + EVALUATION,
        "lp_ft": PROBE_TRAINING + LP_FT_TRAINING + EVALUATION,
    }
    assert table["device"].to_dict() == dict.fromkeys(PARENTS, "cpu")
    # fine-tuning of itself or its parent, merge, two evaluations, for two targets; the pretrained
    # model's evaluation
    assert table["jobs"].to_dict() == {
        "ft": 2 * 3 + 1,
        "wise": 2 * 4 + 1,
        "probe": 2 * 3 + 1,
        "lp_ft": 2 * 4 + 1,
    }


def test_a_method_of_which_a_record_is_missing_is_left_out(records):
    missing = record_with("finetune/net/a/ft/all/1/", records)
    Path(missing).unlink()
    assert list(tabulate(records).index) == ["probe", "lp_ft"]


def test_records_that_were_gathered_stand_for_those_not_pulled(records, tmp_path, monkeypatch):
    # given
    monkeypatch.chdir(tmp_path)
    relative_records = [str(Path(path).relative_to(tmp_path)) for path in records]
    not_pulled = record_with("finetune/net/a/ft/all/1/", relative_records)
    facts = provenance.read(Path(not_pulled))
    Path(not_pulled).unlink()
    provenance.save({not_pulled: [facts]})
    # when
    table = tabulate(relative_records)
    # then
    assert table.loc["ft", "seconds"] == FT_TRAINING + EVALUATION


def test_a_methods_devices_are_those_of_all_its_jobs(records):
    path = record_with("finetune/net/a/probe/all/0/", records)
    write_record(Path(path), 1.0, "cuda")
    assert tabulate(records)["device"].to_dict() == {
        "ft": "cpu",
        "wise": "cpu",
        "probe": "cpu+cuda",
        "lp_ft": "cpu+cuda",
    }


def write_costs(table_file, arguments):
    """Write the table of costs as its job does; gives it as a text."""
    write(cost_of, **arguments, conditions=CONDITIONS, table=table_file)
    return table_file.read_text()


def test_the_table_of_a_grid_without_methods_has_no_lines(base, tmp_path):
    # given
    record = write_record(base / PRETRAINED_RECORD, PRETRAINED_SECONDS, "cpu")
    arguments = arguments_of(records=[record], parents={})
    # when
    text = write_costs(tmp_path / "cost.csv", arguments)
    # then
    columns = [
        *("model", "method", "size", "device", "jobs", "finetune", "merge", "evaluate", "seconds"),
        *("images", "megabytes", "memory", "conditions"),
    ]
    assert text.splitlines() == [",".join(columns)]


def test_memory_is_of_the_needed_training_that_held_most(base):
    """Evaluations, merges and other methods' trainings may have held more."""
    # given
    megabytes_of_jobs = {
        PRETRAINED_RECORD: 9,
        "finetune/net/a/ft/all/0/provenance.json": 3,
        "finetune/net/b/ft/all/0/provenance.json": 5,
        "finetune/net/b/probe/all/0/provenance.json": 7,
        "merge/net/b/wise/all/0/provenance.json": 8,
        "evaluate/net/b/wise/all/0/s.provenance.json": 9,
    }
    records = [
        write_record(base / path, 1.0, "cpu", peak_memory=megabytes * 1_000_000)
        for path, megabytes in megabytes_of_jobs.items()
    ]
    # when
    table = tabulate(records)
    # then
    assert table["memory"].to_dict() == {"ft": 5, "wise": 5, "probe": 7}


def test_needed_methods_count_however_far_back_and_each_once(records):
    """A soup of a merge and its parent, started from what a probe gave."""
    # given
    parents = {
        **PARENTS,
        "soup": ["wise", "lp_ft", "ft"],
        "probe": ["lp_ft_less"],
        "lp_ft_less": [],
    }
    soup_seconds = 0.25  # of each of its jobs, as many as WiSE has
    jobs = jobs_of(records)
    jobs_of_wise = jobs[jobs["method"] == "wise"]
    jobs_of_soup = jobs_of_wise.assign(method="soup", seconds=soup_seconds)
    # when
    table = cost_table(pd.concat([jobs, jobs_of_soup]), parents).set_index("method")
    # then it has ft, lp_ft and the probe that lp_ft starts from, and not the merge of wise
    soup = table.loc["soup"]
    assert soup["finetune"] == FT_TRAINING + LP_FT_TRAINING + PROBE_TRAINING
    assert soup["merge"] == 2 * soup_seconds
    assert soup["evaluate"] == 2 * 2 * soup_seconds + PRETRAINED_SECONDS
    assert soup["jobs"] == 2 * (3 + 1 + 2) + 1
    # and methods are in the order that was given
    assert list(table.index) == ["ft", "wise", "probe", "lp_ft", "soup"]


def test_models_and_sizes_have_lines_of_their_own(records):
    # given the jobs of another model, twice as long, and of a size of one target, on a GPU
    jobs = jobs_of(records)
    jobs_of_other_model = jobs.assign(model="other", seconds=2 * jobs["seconds"])
    is_fine_tuned = jobs["method"] != "pretrained"
    is_on_first_target = jobs["target"] == "a"
    jobs_of_ten_images = jobs[is_fine_tuned & is_on_first_target].assign(size="10", device="cuda")
    all_jobs = pd.concat([jobs, jobs_of_other_model, jobs_of_ten_images])
    # when
    table = cost_table(all_jobs, {"ft": [], "absent": []}).set_index(["model", "size"])
    # then
    assert table["seconds"].to_dict() == {
        ("net", "all"): FT_TRAINING + EVALUATION,
        ("other", "all"): 2 * (FT_TRAINING + EVALUATION),
        ("net", "10"): FT_TRAINING / 2 + 3 + PRETRAINED_SECONDS,
    }
    assert table["device"].to_dict() == {
        ("net", "all"): "cpu",
        ("other", "all"): "cpu",
        ("net", "10"): "cpu+cuda",
    }
    assert table["jobs"].to_dict() == {("net", "all"): 7, ("other", "all"): 7, ("net", "10"): 4}
    assert set(table["method"]) == {"ft"}


def test_without_the_pretrained_models_record_nothing_can_be_counted(records, caplog):
    pretrained_record = record_with(PRETRAINED_RECORD, records)
    Path(pretrained_record).unlink()
    table = tabulate(records)
    assert len(table) == 0
    assert "cost of net, ft" in caplog.text


def test_the_written_table_has_hundredths_of_seconds(records, tmp_path):
    # when
    table_file = tmp_path / "cost.csv"
    lines = write_costs(table_file, arguments_of(records)).splitlines()
    # then, of two targets, with 400 images of ft each, 2 MB of ft and 2 MB of the merge each
    assert "net,wise,all,cpu,9,300.00,1.00,11.00,312.00,800,8.00,1.00,protocol paper" in lines
    assert "net,lp_ft,all,cpu,9,180.00,0.00,11.00,191.00,1600,8.00,1.00,protocol paper" in lines
    written_table = pd.read_csv(table_file).drop(columns="conditions")
    pd.testing.assert_frame_equal(written_table, cost_table(jobs_of(records), PARENTS))


def test_the_fisher_information_that_a_merge_needs_is_part_of_its_merge_and_of_no_other_methods(
    records, base
):
    # given
    fisher_records = []
    for target, seed in itertools.product(TARGETS, SEEDS):
        path = base / f"fisher/net/{target}/ft/all/{seed}/20.provenance.json"
        fisher_records.append(write_record(path, FISHER_SECONDS, "cpu"))
    # when
    costs = cost_of(**arguments_of(records, fisher={"wise": fisher_records})).set_index("method")
    # then the merge has one more job for each target
    wise = costs.loc["wise"]
    assert wise["merge"] == MERGE + 2 * FISHER_SECONDS
    assert wise["megabytes"] == 2 * 3 * JOB_MEGABYTES
    assert wise["jobs"] == 2 * 5 + 1
    assert wise["images"] == 2 * TRAINING_IMAGES
    # and fine-tuning has none
    assert costs.loc["ft", "seconds"] == FT_TRAINING + EVALUATION


def test_fisher_information_that_trainings_share_counts_once_for_all_targets_and_variants(
    records, base
):
    # given one job for each seed, which two methods share, and a merge of both
    shared_records = []
    for seed in SEEDS:
        path = base / f"fisher/net/none/pretrained/all/{seed}/20.provenance.json"
        shared_records.append(write_record(path, FISHER_SECONDS, "cpu"))
    shared_fisher = {"ft": shared_records, "probe": shared_records}
    parents = {"ft": [], "probe": [], "wise": ["ft", "probe"]}
    # when
    arguments = arguments_of(records, shared_fisher=shared_fisher, parents=parents)
    costs = cost_of(**arguments).set_index("method")
    # then each has it once per mRI, in its training, and so does the merge
    assert costs["finetune"].to_dict() == {
        "ft": FT_TRAINING + FISHER_SECONDS,
        "probe": PROBE_TRAINING + FISHER_SECONDS,
        "wise": FT_TRAINING + PROBE_TRAINING + FISHER_SECONDS,
    }
    assert costs.loc["ft", "jobs"] == 2 * 3 + 1 + 1
    assert costs.loc["ft", "images"] == 2 * TRAINING_IMAGES
    assert costs.loc["wise", "merge"] == MERGE


def test_methods_that_are_evaluated_together_share_the_seconds_of_the_job(records):
    # given the evaluations of `wise`, now as those of two variants
    parents = {"ft": [], "wise-alpha0.25": ["ft"], "wise-alpha0.5": ["ft"]}
    evaluated = {name: [name] for name in ("pretrained", "ft", "probe", "lp_ft")}
    evaluated["wise"] = ["wise-alpha0.25", "wise-alpha0.5"]
    # when
    costs = cost_of(**arguments_of(records, parents=parents, evaluated=evaluated))
    # then
    of_targets = EVALUATION - PRETRAINED_SECONDS
    evaluation_of_variant = of_targets / 2 + PRETRAINED_SECONDS
    assert costs.set_index("method")["evaluate"].to_dict() == {
        "ft": EVALUATION,
        "wise-alpha0.25": evaluation_of_variant,
        "wise-alpha0.5": evaluation_of_variant,
    }
    # and each counts the training of ft and two evaluations, for two targets, and the pretrained
    # model's evaluation
    assert set(costs["jobs"]) == {2 * 3 + 1}


def test_histories_are_gathered_with_their_run_every_epoch_and_eight_digits(tmp_path):
    # given
    histories = []
    for seed in (0, 3):
        history = tmp_path / f"finetune/net/a/ft/0.5/{seed}/history.csv"
        history.parent.mkdir(parents=True)
        history.write_text(
            "epoch,lr,loss,cross_entropy,accuracy,more\n"
            f"1,1.23456789e-07,3.5,2.5,0.{seed}25,x\n"
            "2,0,1.25,1,0.75,x\n"
        )
        histories.append(history)
    table_file = tmp_path / "training.csv"
    table_file_of_none = tmp_path / "none.csv"
    # when
    write(training_table, histories=iter(histories), conditions=CONDITIONS, table=table_file)
    write(training_table, histories=[], conditions=CONDITIONS, table=table_file_of_none)
    # then
    header = "model,method,target,size,seed,epoch,lr,loss,cross_entropy,accuracy,conditions"
    assert table_file.read_text().splitlines() == [
        header,
        "net,ft,a,0.5,0,1,1.2345679e-07,3.5,2.5,2.5,protocol paper",
        "net,ft,a,0.5,0,2,0,1.25,1,75,protocol paper",
        "net,ft,a,0.5,3,1,1.2345679e-07,3.5,2.5,32.5,protocol paper",
        "net,ft,a,0.5,3,2,0,1.25,1,75,protocol paper",
    ]
    assert table_file_of_none.read_text().splitlines() == [header]


def two_digits(ratio):
    """A ratio as an entry states it: with two significant digits, and 0 for next to nothing."""
    return float(f"{ratio:.2g}") if abs(ratio) > 0.001 else 0


def test_entries_have_the_costs_of_the_kept_comparison():
    """Against full fine-tuning, of a method alone: without what it needs."""
    # given
    columns = ["finetune", "images", "megabytes"]
    kept_table = pd.read_csv(ROOT / "reports/methods/cost.csv").set_index("method")
    costs = kept_table[columns].astype(float)
    costs_of_ft = costs.loc["ft"]
    seconds_per_image_of_ft = costs_of_ft["finetune"] / costs_of_ft["images"]
    catalog = Catalog([ROOT / "workflow/catalog"])
    methods = [
        method
        for name, method in catalog.methods.items()
        if name in costs.index and method.over == METHODS
    ]
    assert len(methods) > 20
    assert any(method.trains for method in methods)
    for method in methods:
        # when
        costs_of_parents = costs.loc[[*method.parents]].sum()
        costs_alone = costs.loc[method.name] - costs_of_parents
        # then; merges also have a file of some hundred bytes
        storage_ratio = costs_alone["megabytes"] / costs_of_ft["megabytes"]
        assert method.cost_of("storage") == two_digits(storage_ratio), method.name
        if method.trains:
            seconds_per_image = costs_alone["finetune"] / costs_alone["images"]
            training_ratio = seconds_per_image / seconds_per_image_of_ft
            assert method.cost_of("training") == two_digits(training_ratio), method.name
