"""The experiment around the environment: arms, evaluation, statistics, report, checkpoints, bench."""
