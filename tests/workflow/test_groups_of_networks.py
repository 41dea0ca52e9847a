"""Which grids of the fashion family compare groups of networks; dry-runs alone."""

import pytest

from tiny.projects.project import Project, copy_project, jobs

pytestmark = pytest.mark.thorough


@pytest.fixture
def fashion(tmp_path):
    return Project(copy_project(tmp_path / "project"), family="fashion")


def test_a_grid_with_one_network_of_each_group_compares_none(fashion):
    models = "models=[fashion_cnn_1k,fashion_cnn_50k]"
    listed = fashion.listed(config=(models, "methods=[ft]"))
    assert "analyse_networks" not in jobs(listed)
    assert "figures/networks.png" not in listed
    # when: a replicate is there, too
    models = "models=[fashion_cnn_1k,fashion_cnn_1k_seed1,fashion_cnn_50k]"
    with_replicate = fashion.listed(config=(models, "methods=[ft]"))
    # then: one job and one figure more
    assert jobs(with_replicate)["analyse_networks"] == 1
    assert "figures/networks.png" in with_replicate
