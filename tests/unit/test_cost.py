"""What an mRI costs, from records made up; histories gathered."""

import json
from pathlib import Path

import pandas as pd
import pytest

from rib.analyses.cost.settings import CostSettings
from rib.analyses.cost.tables import cost_of, cost_table, jobs_of
from rib.analyses.training.tables import training_table
from rib.config.catalog import Catalog
from rib.config.run import METHODS
from rib.records import provenance
from tiny.records import FACTS
from tiny.tables import write

ROOT = Path(__file__).parents[2]
PARENTS = {"ft": [], "wise": ["ft"], "probe": [], "lp_ft": ["probe"]}


def settings_of(records, fisher=None, shared_fisher=None, parents=PARENTS):
    """Settings of the job that sums up costs."""
    return CostSettings(
        records=list(map(str, records)),
        fisher={name: list(map(str, paths)) for name, paths in (fisher or {}).items()},
        shared_fisher={
            name: list(map(str, paths)) for name, paths in (shared_fisher or {}).items()
        },
        parents=parents,
        conditions="protocol paper",
        code="",
    )


SECONDS = {"ft": 100.0, "probe": 10.0, "lp_ft": 50.0}
SEEDS, TARGETS = (0, 1), ("a", "b")


def record(path, seconds, device=None, images=None):
    """A job's record and, with a device, its manifest; it has written 2 MB, in two files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"results/a": 1_500_000, "results/b": 500_000}
    counted, other = ("seconds", "cpu_seconds") if device == "cuda" else ("cpu_seconds", "seconds")
    times = {counted: seconds, other: 1e6}
    provenance.write(
        path, {**FACTS, "log": "l", "inputs": {}, "outputs": {}, "sizes": sizes, **times}
    )
    if device:
        manifest = {"device": device} | ({} if images is None else {"images": images})
        path.with_name(path.name.replace("provenance", "manifest")).write_text(json.dumps(manifest))
    return str(path)


@pytest.fixture
def records(tmp_path):
    """One model, of which evaluation takes 1 s, 2 s on the second group.

    The pretrained model's evaluation takes 5 s; seed 1 trains twice as long.
    """
    base = tmp_path / "results/f/paper"
    found = [record(base / "evaluate/net/none/pretrained/all/0/s.provenance.json", 5.0, "cpu")]
    for target in TARGETS:
        for seed in SEEDS:
            for method in PARENTS:
                run = f"net/{target}/{method}/all/{seed}"
                if method in SECONDS:
                    took = SECONDS[method] * (1 + seed)
                    found.append(record(base / f"finetune/{run}/provenance.json", took, "cpu", 400))
                else:
                    found.append(record(base / f"merge/{run}/provenance.json", 0.5))
                for group, took in (("s", 1.0), ("t", 2.0)):
                    found.append(
                        record(base / f"evaluate/{run}/{group}.provenance.json", took, "cpu")
                    )
    return found


def test_a_methods_cost_has_what_it_needs_and_is_the_mean_over_seeds(records):
    table = cost_table(jobs_of(records), PARENTS).set_index("method")
    evaluated = 2 * (1 + 2) + 5
    for method, trained, merged in (
        ("ft", 300, 0),
        ("wise", 300, 1),
        ("probe", 30, 0),
        ("lp_ft", 180, 0),
    ):
        line = table.loc[method]
        assert (line["finetune"], line["merge"], line["evaluate"]) == (trained, merged, evaluated)
        assert line["seconds"] == trained + merged + evaluated and line["device"] == "cpu"
    # fine-tuning of itself or its parent, merge, two evaluations, for two targets; the pretrained
    # model's evaluation
    assert table["jobs"].to_dict() == {
        "ft": 2 * 3 + 1,
        "wise": 2 * 4 + 1,
        "probe": 2 * 3 + 1,
        "lp_ft": 2 * 4 + 1,
    }


def test_a_method_of_which_a_record_is_missing_is_left_out(records, tmp_path):
    (missing,) = [path for path in records if "finetune/net/a/ft/all/1/" in path]
    (tmp_path / missing).unlink()
    assert cost_table(jobs_of(records), PARENTS)["method"].tolist() == ["probe", "lp_ft"]


def test_records_that_were_gathered_stand_for_those_not_pulled(records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (gone,) = [path for path in records if "finetune/net/a/ft/all/1/" in path]
    content = provenance.read(tmp_path / gone)
    (tmp_path / gone).unlink()
    provenance.save({str(Path(gone).relative_to(tmp_path)): [content]})
    records = [str(Path(path).relative_to(tmp_path)) for path in records]
    assert "ft" in set(cost_table(jobs_of(records), PARENTS)["method"])


def test_a_methods_devices_are_those_of_all_its_jobs(records, tmp_path):
    (path,) = [path for path in records if "finetune/net/a/probe/all/0/" in path]
    record(tmp_path / path, 1.0, "cuda")
    table = cost_table(jobs_of(records), PARENTS).set_index("method")["device"]
    assert table.to_dict() == {"ft": "cpu", "wise": "cpu", "probe": "cpu+cuda", "lp_ft": "cpu+cuda"}


def test_the_table_of_a_grid_without_methods_has_no_lines(tmp_path):
    path = record(
        tmp_path / "results/f/paper/evaluate/net/none/pretrained/all/0/s.provenance.json",
        5.0,
        "cpu",
    )
    settings = settings_of(records=[path], parents={})
    write(cost_of, settings=settings, conditions="protocol paper", table=tmp_path / "cost.csv")
    head = "model,method,size,device,jobs,finetune,merge,evaluate,seconds,images,megabytes"
    assert (tmp_path / "cost.csv").read_text().startswith(head)


def test_needed_methods_count_however_far_back_and_each_once(records):
    """A soup of a merge and its parent, started from what a probe gave."""
    parents = {
        **PARENTS,
        "soup": ["wise", "lp_ft", "ft"],
        "probe": ["lp_ft_less"],
        "lp_ft_less": [],
    }
    jobs = jobs_of(records)
    soup = jobs[jobs["method"] == "wise"].assign(method="soup", seconds=0.25)
    table = cost_table(pd.concat([jobs, soup]), parents).set_index("method")
    # ft, lp_ft and the probe that lp_ft starts from, over seeds and targets as above; not the merge
    # of wise
    assert table.loc["soup", "finetune"] == 300 + 150 + 30
    assert (
        table.loc["soup", "merge"] == 2 * 0.25 and table.loc["soup", "evaluate"] == 2 * 2 * 0.25 + 5
    )
    assert table.loc["soup", "jobs"] == 2 * (3 + 1 + 2) + 1
    assert list(table.index) == ["ft", "wise", "probe", "lp_ft", "soup"], (
        "in the order that was given"
    )


def test_models_and_sizes_have_lines_of_their_own(records):
    jobs = jobs_of(records)
    tuned = jobs["method"] != "pretrained"
    other = jobs.assign(model="other", seconds=jobs["seconds"] * 2)
    small = jobs[tuned & (jobs["target"] == "a")].assign(size="10", device="cuda")
    table = cost_table(pd.concat([jobs, other, small]), {"ft": [], "absent": []}).set_index(
        ["model", "size"]
    )
    assert table["seconds"].to_dict() == {
        ("net", "all"): 311,
        ("other", "all"): 622,
        ("net", "10"): 150 + 3 + 5,
    }
    assert table["device"].to_dict() == {
        ("net", "all"): "cpu",
        ("other", "all"): "cpu",
        ("net", "10"): "cpu+cuda",
    }
    assert table["jobs"].to_dict() == {("net", "all"): 7, ("other", "all"): 7, ("net", "10"): 4}
    assert set(table["method"]) == {"ft"}


def test_without_the_pretrained_models_record_nothing_can_be_counted(records, tmp_path, caplog):
    (tmp_path / records[0]).unlink()
    assert len(cost_table(jobs_of(records), PARENTS)) == 0
    assert "cost of net, ft" in caplog.text


def test_a_job_is_read_off_its_path_its_record_and_its_manifest(records, tmp_path):
    (merge,) = [path for path in records if "/merge/net/b/wise/all/1/" in path]
    table = jobs_of([records[0], merge])
    assert table.to_numpy().tolist() == [
        ["evaluate", "net", "none", "pretrained", "all", "0", 5.0, 0, 2.0, "cpu", records[0]],
        ["merge", "net", "b", "wise", "all", "1", 0.5, 0, 2.0, "", merge],
    ]
    assert list(table)[:-5] == ["stage", "model", "target", "method", "size", "seed"]
    assert list(table)[-5:] == ["seconds", "images", "megabytes", "device", "record"]
    gone = str(tmp_path / "results/f/paper/finetune/m/t/ft/all/3/provenance.json")
    (line,) = jobs_of([gone]).to_dict("records")
    assert (
        pd.isna(line["seconds"])
        and pd.isna(line["megabytes"])
        and line["device"] == ""
        and (line["model"], line["seed"]) == ("m", "3")
    )


def test_the_written_table_has_hundredths_of_seconds(records, tmp_path):
    settings = settings_of(records=records)
    write(cost_of, settings=settings, conditions="protocol paper", table=tmp_path / "cost.csv")
    text = (tmp_path / "cost.csv").read_text()
    # two targets: 400 images of ft each, 2 MB of ft and 2 MB of the merge each
    assert "net,wise,all,cpu,9,300.00,1.00,11.00,312.00,800,8.00,protocol paper\n" in text
    assert "net,lp_ft,all,cpu,9,180.00,0.00,11.00,191.00,1600,8.00,protocol paper\n" in text
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "cost.csv").drop(columns="conditions"),
        cost_table(jobs_of(records), PARENTS),
    )


def test_the_fisher_information_that_a_merge_needs_is_part_of_its_merge_and_of_no_other_methods(
    records, tmp_path
):
    base, table = tmp_path / "results/f/paper", tmp_path / "cost.csv"
    runs = [(target, seed) for target in TARGETS for seed in SEEDS]
    paths = [
        record(base / f"fisher/net/{t}/ft/all/{seed}/20.provenance.json", 7.0, "cpu")
        for t, seed in runs
    ]
    settings = settings_of(records=records, fisher={"wise": paths})
    write(cost_of, settings=settings, conditions="c", table=table)
    costs = pd.read_csv(table).set_index("method")
    assert costs.loc["wise", "merge"] == 1 + 2 * 7 and costs.loc["wise", "megabytes"] == 8 + 2 * 2
    assert costs.loc["wise", "jobs"] == 9 + 2 and costs.loc["wise", "images"] == 800
    assert costs.loc["ft", "seconds"] == 311


def test_fisher_information_that_trainings_share_counts_once_for_all_targets_and_variants(
    records, tmp_path
):
    # Given: one job for each seed, which two methods share, and a merge of both
    base = tmp_path / "results/f/paper"
    shared = [
        record(base / f"fisher/net/none/pretrained/all/{seed}/20.provenance.json", 7.0, "cpu")
        for seed in SEEDS
    ]
    parents = {"ft": [], "probe": [], "wise": ["ft", "probe"]}
    # When: costs are counted
    shared_fisher = {"ft": shared, "probe": shared}
    settings = settings_of(records=records, shared_fisher=shared_fisher, parents=parents)
    costs = cost_of(settings).set_index("method")
    # Then: each has it once per mRI, in its training, and so does the merge
    assert costs.loc["ft", "finetune"] == 300 + 7 and costs.loc["ft", "jobs"] == 2 * 3 + 1 + 1
    assert costs.loc["probe", "finetune"] == 30 + 7 and costs.loc["ft", "images"] == 800
    assert costs.loc["wise", "finetune"] == 300 + 30 + 7 and costs.loc["wise", "merge"] == 1


def test_histories_are_gathered_with_their_run_every_epoch_and_eight_digits(tmp_path):
    paths = []
    for seed in (0, 3):
        path = tmp_path / f"finetune/net/a/ft/0.5/{seed}/history.csv"
        path.parent.mkdir(parents=True)
        path.write_text(
            f"epoch,lr,loss,cross_entropy,accuracy,more\n"
            f"1,1.23456789e-07,3.5,2.5,0.{seed}25,x\n2,0,1.25,1,0.75,x\n"
        )
        paths.append(path)
    write(
        training_table,
        histories=iter(paths),
        conditions="protocol paper",
        table=tmp_path / "training.csv",
    )
    assert (tmp_path / "training.csv").read_text().splitlines() == [
        "model,method,target,size,seed,epoch,lr,loss,cross_entropy,accuracy,conditions",
        "net,ft,a,0.5,0,1,1.2345679e-07,3.5,2.5,2.5,protocol paper",
        "net,ft,a,0.5,0,2,0,1.25,1,75,protocol paper",
        "net,ft,a,0.5,3,1,1.2345679e-07,3.5,2.5,32.5,protocol paper",
        "net,ft,a,0.5,3,2,0,1.25,1,75,protocol paper",
    ]
    write(training_table, histories=[], conditions="protocol paper", table=tmp_path / "none.csv")
    assert len(pd.read_csv(tmp_path / "none.csv")) == 0


def test_entries_have_the_costs_of_the_kept_comparison():
    """Against full fine-tuning, of a method alone: without what it needs."""
    columns = ["finetune", "images", "megabytes"]
    table = (
        pd.read_csv(ROOT / "reports/methods/cost.csv").set_index("method")[columns].astype(float)
    )
    ft, methods = table.loc["ft"], Catalog([ROOT / "workflow/catalog"]).methods
    listed = [
        method for name, method in methods.items() if name in table.index and method.over == METHODS
    ]
    assert len(listed) > 20
    for method in listed:
        own = table.loc[method.name] - table.loc[[*method.parents]].sum()
        found = {
            "storage": own["megabytes"] / ft["megabytes"]
        }  # merges also have a file of some hundred bytes
        if method.trains:
            found["training"] = own["finetune"] / own["images"] / (ft["finetune"] / ft["images"])
        for what, ratio in found.items():
            assert method.cost_of(what) == (float(f"{ratio:.2g}") if abs(ratio) > 0.001 else 0), (
                method.name
            )
