"""Messages of a training: counts, times, and a progress bar without a line at 0 %."""

import dataclasses

import probe
import pytest

from purecc4.train import progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.01, "1 second"),
        (1.7, "2 seconds"),
        (119.0, "119 seconds"),
        (150.0, "2 minutes"),
        (7100.0, "118 minutes"),
        (9000.0, "2.5 hours"),
    ],
)
def test_times_are_in_a_readable_unit(seconds, text):
    assert progress.duration(seconds) == text


def test_the_announcement_counts_in_the_singular_and_the_plural(capsys):
    config = dataclasses.replace(probe.CONFIG, arm=("bonus",), seeds=(7,), total_timesteps=4 * 32)
    progress.announce(config)
    progress.announce(dataclasses.replace(config, seeds=(7, 8), total_timesteps=32))
    first, second = capsys.readouterr().out.splitlines()
    assert "1 run of 4 updates" in first and "2 runs of 1 update," in second


def test_the_bar_appears_with_the_first_update(capsys):
    config = dataclasses.replace(probe.CONFIG, total_timesteps=4 * 32)
    with progress.Bar(config, 0) as bar:
        progress.announce_rest(3.0)
        assert capsys.readouterr().err == ""
        for _ in range(4):
            bar.advance(1, "80 steps/s")
    shown = capsys.readouterr().err
    assert "1/4" in shown and "4/4" in shown and "80 steps/s" in shown and "0/4" not in shown
