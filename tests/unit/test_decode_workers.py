"""How many threads decode photos."""

import pytest

from rib.jobs.decode_workers import number_of_decode_workers


@pytest.mark.parametrize(
    ("setting", "cores", "gpus", "workers"),
    [
        (7, 64, 4, 7),  # what is stated holds
        (1, None, None, 1),
        ("auto", 65, 4, 16),
        ("auto", 64, 4, 15),  # together less than there are
        ("auto", 2, 4, 1),
        ("auto", 192, 1, 32),  # more don't help
        ("auto", 64, None, 4),
        ("auto", 64, 0, 4),
        ("auto", None, 4, 4),  # jobs run elsewhere
    ],
)
def test_threads_are_an_equal_share_of_the_cores_for_each_gpu(setting, cores, gpus, workers):
    assert number_of_decode_workers(setting, cores, gpus) == workers
