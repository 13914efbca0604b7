"""Which parameters to try, in which order: pure, so that a resumed run proposes what the interrupted one did."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.v1alpha1.training import Candidate, ParameterValue, SearchRange, Tuning
from drivetrain.pipelines.ensembles import Single


@dataclass(frozen=True, slots=True)
class Proposals:
    """Trials in order: `fixed` compares the candidates as declared, `searched` tunes them."""

    fixed: tuple[Single, ...]
    searched: tuple[Single, ...]


def propose(candidates: Sequence[Candidate], tuning: Tuning, first: Sequence[Single] = ()) -> Proposals:
    """At most `tuning.trials` proposals, but at least one for each candidate, with its fixed parameters.

    `first` (a champion's best parameters) come right after them; then the candidates take turns, Grid in the declared
    order of choices, Random with a generator seeded by the trial's number. Nothing is proposed twice. Raises
    InvalidSpecError for Grid over a range and for a Log scale that reaches 0.
    """
    fixed = tuple(_single(candidate, {}) for candidate in candidates)
    seen = set(fixed)
    searched: list[Single] = []
    turns = [_draws(candidate, number, tuning) for number, candidate in enumerate(candidates) if candidate.search]
    for proposal in itertools.chain(first, _alternating(turns)):
        if len(fixed) + len(searched) >= tuning.trials:
            break
        if proposal not in seen:
            seen.add(proposal)
            searched.append(proposal)
    return Proposals(fixed, tuple(searched))


def _alternating(turns: Sequence[Iterator[Single]]) -> Iterator[Single]:
    waiting = list(turns)
    while waiting:
        for turn in tuple(waiting):
            proposal = next(turn, None)
            if proposal is None:
                waiting.remove(turn)
            else:
                yield proposal


def _draws(candidate: Candidate, number: int, tuning: Tuning) -> Iterator[Single]:
    if tuning.algorithm == "Grid":
        yield from _grid(candidate)
        return
    # Few choices repeat often: a search that has drawn ten times its trials has seen what there is.
    for index in range(10 * tuning.trials):
        draws = np.random.default_rng([tuning.seed, number, index])
        yield _single(candidate, {name: _drawn(search, draws) for name, search in candidate.search.items()})


def _grid(candidate: Candidate) -> Iterator[Single]:
    for name, search in candidate.search.items():
        if not search.choices:
            cause = f"Grid cannot try every value between {search.minimum} and {search.maximum}."
            field = f"candidates.{candidate.name}.search.{name}"
            raise InvalidSpecError((Problem(field, cause, "List choices, or use Random."),))
    names = list(candidate.search)
    for values in itertools.product(*(candidate.search[name].choices for name in names)):
        yield _single(candidate, dict(zip(names, values, strict=True)))


def _drawn(search: SearchRange, draws: np.random.Generator) -> ParameterValue:
    if search.choices:
        return search.choices[int(draws.integers(len(search.choices)))]
    assert search.minimum is not None
    assert search.maximum is not None
    low, high = search.minimum, search.maximum
    if search.scale == "Log" and low <= 0:
        cause = f"A Log scale cannot begin at {low:g}."
        raise InvalidSpecError((Problem("candidates.search", cause, "Use a minimum above 0, or the Linear scale."),))
    if search.type == "Integer" and search.scale == "Linear":
        return int(draws.integers(math.ceil(low), math.floor(high) + 1))
    if search.scale == "Log":
        value = math.exp(draws.uniform(math.log(low), math.log(high)))
    else:
        value = float(draws.uniform(low, high))
    # Six digits are enough for a parameter, and read well in reports.
    return (
        min(max(round(value), math.ceil(low)), math.floor(high)) if search.type == "Integer" else float(f"{value:.6g}")
    )


def _single(candidate: Candidate, searched: Mapping[str, ParameterValue]) -> Single:
    parameters = {**candidate.parameters, **searched}
    return Single(candidate.name, candidate.estimator, tuple(sorted(parameters.items())))
