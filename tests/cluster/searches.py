"""Searches that take long enough to be disturbed."""

from typing import Any


def slow_search(slow_trials: int) -> dict[str, Any]:
    """Training with one quick trial and some that take seconds each and never win, so that the graph stays small."""
    trees = {
        "name": "trees",
        "estimator": "LightGBM",
        "parameters": {"n_estimators": 100},
        "search": {
            "learning_rate": {"choices": [0.000001]},
            "n_estimators": {"choices": [5000 + number for number in range(slow_trials)]},
        },
    }
    tuning = {"algorithm": "Grid", "trials": 1 + slow_trials, "parallelTrials": 1, "seed": 3}
    return {"candidates": [trees], "tuning": tuning}
