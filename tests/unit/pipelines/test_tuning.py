"""Proposals: which trials are run, in which order, and that a resumed run proposes the same ones."""

from typing import Any

import pytest

from drivetrain.api.errors import InvalidSpecError
from drivetrain.api.v1alpha1.training import Candidate, Tuning
from drivetrain.pipelines.ensembles import Single
from drivetrain.pipelines.tuning import propose

LINEAR = Candidate(name="linear", estimator="LogisticRegression")


def trees(**search: dict[str, Any]) -> Candidate:
    return Candidate.model_validate(
        {"name": "trees", "estimator": "LightGBM", "parameters": {"max_bin": 63}, "search": search}
    )


def forest(**search: dict[str, Any]) -> Candidate:
    return Candidate.model_validate({"name": "forest", "estimator": "RandomForest", "search": search})


def parameters(proposal: Single) -> dict[str, object]:
    return dict(proposal.parameters)


def test_each_candidate_is_tried_with_its_fixed_parameters_first_even_beyond_the_trials() -> None:
    found = propose([LINEAR, trees(num_leaves={"choices": [7, 15]})], Tuning(trials=1))
    assert [one.candidate for one in found.fixed] == ["linear", "trees"]
    assert parameters(found.fixed[1]) == {"max_bin": 63}
    assert found.searched == ()


def test_grid_tries_every_combination_in_the_declared_order() -> None:
    candidate = trees(num_leaves={"choices": [31, 7]}, learning_rate={"choices": [0.1, 0.05]})
    found = propose([candidate], Tuning(algorithm="Grid", trials=100))
    tried = [(one["num_leaves"], one["learning_rate"]) for one in map(parameters, found.searched)]
    assert tried == [(31, 0.1), (31, 0.05), (7, 0.1), (7, 0.05)]


def test_candidates_take_turns_until_the_trials_are_used_up() -> None:
    both = [trees(num_leaves={"choices": [7, 15, 31]}), forest(max_depth={"choices": [4]})]
    found = propose(both, Tuning(algorithm="Grid", trials=6))
    assert [one.candidate for one in found.searched] == ["trees", "forest", "trees", "trees"]


def test_random_draws_the_same_again_and_a_longer_search_goes_on_where_a_shorter_one_ended() -> None:
    candidate = trees(learning_rate={"minimum": 0.01, "maximum": 0.3, "scale": "Log"})
    short = propose([candidate], Tuning(trials=5, seed=3))
    assert propose([candidate], Tuning(trials=5, seed=3)) == short
    assert propose([candidate], Tuning(trials=9, seed=3)).searched[:4] == short.searched
    assert propose([candidate], Tuning(trials=5, seed=4)).searched != short.searched


def test_a_range_is_drawn_within_its_ends_and_whole_where_it_is_integer() -> None:
    candidate = trees(
        num_leaves={"minimum": 4.5, "maximum": 9, "type": "Integer"},
        learning_rate={"minimum": 0.01, "maximum": 1, "scale": "Log"},
    )
    drawn = [parameters(one) for one in propose([candidate], Tuning(trials=200)).searched]
    leaves = [one["num_leaves"] for one in drawn]
    assert set(leaves) == {5, 6, 7, 8, 9}
    assert all(type(one) is int for one in leaves)
    rates = [float(str(one["learning_rate"])) for one in drawn]
    assert all(0.01 <= one <= 1 for one in rates)
    # On a Log scale half of the draws lie below 0.1: outside 70 to 130 of 199 with probability below 1e-4.
    assert 70 <= sum(one < 0.1 for one in rates) <= 130


def test_nothing_is_proposed_twice_and_a_small_space_ends_the_search() -> None:
    found = propose([trees(num_leaves={"choices": [7, 15]})], Tuning(trials=50))
    assert sorted(str(parameters(one)["num_leaves"]) for one in found.searched) == ["15", "7"]


def test_a_champions_parameters_are_tried_right_after_the_fixed_ones() -> None:
    best = Single("trees", "LightGBM", (("max_bin", 63), ("num_leaves", 23)))
    found = propose([trees(num_leaves={"choices": [7]})], Tuning(trials=3), [best])
    assert found.searched[0] == best


def test_grid_over_a_range_is_refused_with_what_to_do() -> None:
    candidate = trees(learning_rate={"minimum": 0.01, "maximum": 0.3})
    with pytest.raises(InvalidSpecError, match="List choices, or use Random"):
        propose([candidate], Tuning(algorithm="Grid", trials=3))


def test_a_log_scale_from_zero_is_refused() -> None:
    candidate = trees(learning_rate={"minimum": 0, "maximum": 0.3, "scale": "Log"})
    with pytest.raises(InvalidSpecError, match="Log scale"):
        propose([candidate], Tuning(trials=3))
