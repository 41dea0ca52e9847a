"""Config files for the ImageNet family, run whole on small archives of the true layouts.

Networks, image size and length of training are overridden, since they are large.
"""

import pandas as pd
import pytest

from tiny.data.imagenet import PASSWORD, use_archives
from tiny.models import clip
from tiny.projects import family
from tiny.projects.project import Project, copy_project
from tiny.servers.files import serve

pytestmark = pytest.mark.slow

SMALL = ("compute={device: cpu}", "catalog=mine", "image_size=32")


@pytest.fixture(scope="module")
def on_archives(tmp_path_factory):
    """A project with tiny networks whose catalogue states small archives, and their folder."""
    folder = tmp_path_factory.mktemp("imagenet")
    project = Project(copy_project(folder / "project"), family="imagenet")
    family.make(project.folder / "mine")
    clip.add(project.folder / "mine")
    archives = folder / "served"
    archives.mkdir()
    with serve(archives) as address:
        use_archives(project, archives, address)
        yield project, archives  # while the server runs


def test_the_first_run_shows_all_rates_without_a_login(on_archives):
    project, _ = on_archives
    config = (*SMALL, "models=[tiny_vit]", "targets=[imagenet_a]", "training={epochs: 1}")
    file = ("--configfile", "workflow/configs/imagenet_first.yaml")
    project.snakemake("--cores", "2", *file, config=config)
    tables = project.folder / "reports/imagenet_first/tables"
    ri = pd.read_csv(tables / "ri.csv")
    swept = ri[ri["method"].str.startswith("ft-")]
    assert len(swept) == 2 * 4, "two optimisers at four rates"
    assert set(ri["target"]) == {"imagenet_a"}
    assert len(ri[ri["method"].str.startswith("wise_ft-")]) == len(swept)
    accuracy = pd.read_csv(tables / "accuracy.csv")
    assert len(set(accuracy["dataset"])) == 4
    assert (project.folder / "reports/imagenet_first/index.html").is_file()


def test_in_1k_has_every_method_on_every_dataset(on_archives):
    project, archives = on_archives
    training = "{steps: 3, batch_size: 32, micro_batch_size: 16}"
    config = (*SMALL, "models=[clip]", "seeds=[0,1]", f"training={training}")
    file = ("--configfile", "workflow/configs/in_1k.yaml")
    project.snakemake(
        *("--cores", "2", *file),
        config=(*config, f"archives={archives}"),
        OBJECTNET_PASSWORD=PASSWORD,
    )
    report = project.folder / "reports/in_1k"
    table = pd.read_csv(report / "tables/in_1k.csv")
    assert table["dataset"].iloc[0] == "imagenet_val"
    assert len(set(table["dataset"]) - {"mean"}) == 6
    methods = {name.split("-")[0] for name in table["method"]}
    expected = {"pretrained", "ft", "linear_probe", "lp_ft", "flyp", "wise_ft", "wise_ft_curve"}
    assert methods == expected
    assert (table.loc[table["method"] != "pretrained", "seeds"] == 2).all()
    assert table["accuracy"].between(0, 100).all()
    assert table["ece"].between(0, 100).all()
    assert (report / "figures/in_1k.png").is_file()
