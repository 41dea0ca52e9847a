"""The estimate of the time left, which the console shows."""

from rib.base.time_left import TimeLeft, time_left


def test_a_remaining_job_takes_as_long_as_the_mean_of_its_kind():
    finished = {"long": [100.0, 300.0], "short": [1.0]}
    assert time_left(finished, {"long": 2, "short": 3}, 1) == TimeLeft(2 * 200 + 3, 0)
    assert time_left(finished, {"long": 2, "short": 3}, 2).seconds == (2 * 200 + 3) / 2


def test_jobs_of_a_kind_without_a_finished_job_are_counted_and_not_guessed():
    assert time_left({"short": [1.0], "new": []}, {"short": 1, "new": 4}, 1) == TimeLeft(1.0, 4)
    assert time_left({}, {}, 1) == TimeLeft(0.0, 0)
