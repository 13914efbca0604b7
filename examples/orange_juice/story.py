"""The demo: one project goes round the whole loop, in four acts, on one machine.

1. Today's policy (shelf prices) is the baseline; version 1, which does not know loyalty, goes live on evidence.
2. Loyalty cards are imported; version 2 is trained, rolled out and promoted.
3. A candidate trained by hand on a broken import passes every offline gate, prices too high, and is rejected for harm.
4. Customers become more price-sensitive; the loop notices, retrains and promotes by itself.

What is asserted at the end is the market's truth, which the platform never sees.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from drivetrain.api.documents import mapping
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.meta import API_VERSION
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.local import environment
from drivetrain.local.statedir import StateDir
from examples.orange_juice.history import loyalty_cards, permuted_prices, price_test
from examples.orange_juice.market import Grid, Market, Parameters, read_contexts
from examples.orange_juice.power import LEAST_RIGHT, LIMITS, RUNS, World, require_checked
from examples.orange_juice.power import Project as CheckedProject
from examples.orange_juice.stage import KEYS_SECRET, NAMESPACE, PROJECT, Stage, generator, seeds
from examples.orange_juice.view import View, interval_of

PAST_VISITS = 20_000
# Waits are far beyond what an undisturbed story needs: they outlast a restart of Ray and a second attempt of a run.
RUN_SECONDS = 600.0
ROLLOUT_SECONDS = 600.0
LEAST_RECOVERED = 0.7
"""Share of what the new oracle earns over the frozen policy that act 4 must recover."""
JUDGED_DECISIONS = 4_000
"""Decisions of the last version from which its true value is taken."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act: what was shown, and whether it was."""

    number: int
    title: str
    passed: bool
    seconds: float
    facts: Mapping[str, str]


@dataclass(slots=True)
class Result:
    """What the story came to; scenes and visits are told apart."""

    parameters: dict[str, float]
    gaps: dict[str, float]
    """What is to be earned, USD a visit: the distances between the policies that the story speaks of."""
    acts: list[Act] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    """What each trained version truly reaches of its oracle's gap."""

    @property
    def passed(self) -> bool:
        """Whether all four acts were."""
        return len(self.acts) == 4 and all(act.passed for act in self.acts)


class Story:
    """Four acts on one stage."""

    def __init__(self, stage: Stage, view: View, world: World) -> None:
        self._stage = stage
        self._view = view
        self._rng = generator()
        self._market = world.before
        self._past = read_contexts().draw(PAST_VISITS, self._rng)
        self._past_test = price_test(self._market, self._past, Grid(), self._rng)
        self.result = Result(parameters=asdict(world.before.parameters), gaps=world.gaps())

    def play(self) -> Result:
        """Plays the acts in order; a failed one ends the play, and the report tells why."""
        began = time.monotonic()
        for number, title, act in (
            (1, "Version 1 replaces today's prices", self._first_version),
            (2, "Imported loyalty makes version 2", self._loyalty),
            (3, "A broken import is rejected for harm", self._broken_import),
            (4, "The loop answers a change of customers", self._change),
        ):
            entered = time.monotonic()
            self._view.say(f"Act {number}. {title}")
            facts: Mapping[str, str]
            try:
                facts, passed = act(), True
            except DrivetrainError as error:
                facts, passed = {"failed:": str(error), "state:": self._stage.why()}, False
            self.result.acts.append(Act(number, title, passed, time.monotonic() - entered, facts))
            self._view.say(f"Act {number} {'passed' if passed else 'FAILED'}: {sentence(facts)}")
            if not passed:
                break
        self.result.durations["story"] = time.monotonic() - began
        return self.result

    def _first_version(self) -> Mapping[str, str]:
        self._stage.upload("price-test.parquet", self._past_test)
        self._stage.session.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": KEYS_SECRET, "namespace": NAMESPACE},
                "stringData": dict(self._stage.keys),
            }
        )
        applied = time.monotonic()
        self._stage.session.apply(self._stage.manifest("project.yaml"))
        run = self._run("1", cause="Initial")
        self._stage.wait(self._stage.is_open, seconds=ROLLOUT_SECONDS, what="the endpoint to answer")
        self.result.durations["apply to endpoint ready"] = time.monotonic() - applied
        self._stage.open_shop(self._market)
        promoted = self._promoted(run)
        visits = self._stage.traffic.of(run.status.model_version, 0)
        self.result.shares["version 1, of the no-loyalty oracle over shelf prices"] = _share(
            visits.expected, visits.shelf, visits.oracle
        )
        return promoted

    def _loyalty(self) -> Mapping[str, str]:
        traffic = self._stage.traffic
        traffic.sends_loyalty = True
        live = traffic.cards()
        self._stage.upload(
            "cards.parquet",
            loyalty_cards(
                [*self._past_test["visit_id"], *(visit for visit, _ in live)],
                [*self._past.loyalty.tolist(), *(loyalty for _, loyalty in live)],
            ),
        )
        self._stage.session.apply(self._stage.manifest("project-with-loyalty.yaml"))
        run = self._run("2", cause="SpecChanged")
        promoted = self._promoted(run)
        self._enough_of(run)
        visits = traffic.of(run.status.model_version, 0)
        self.result.shares["version 2, of the loyalty oracle over the no-loyalty oracle"] = _share(
            visits.expected, visits.oracle, visits.loyal_oracle
        )
        return promoted

    def _broken_import(self) -> Mapping[str, str]:
        before = self._stage.stable_version()
        good = next(run for run in self._stage.runs() if run.metadata.name == f"{PROJECT}-2")
        broken = self._stage.rewrite_version(
            str(good.status.data_version),
            lambda rows: permuted_prices(rows, self._rng),
            note="prices permuted within the week",
        )
        training = mapping(self._stage.manifest("project-with-loyalty.yaml"), "spec", "training")
        self._stage.session.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "TrainingRun",
                "metadata": {"name": f"{PROJECT}-by-hand", "namespace": NAMESPACE},
                "spec": {**training, "project": PROJECT, "dataVersion": broken, "trigger": {"cause": "Manual"}},
            }
        )
        run = self._run("by-hand", cause="Manual")
        rejections = len(self._stage.deployment().rejected)
        self._stage.wait(
            lambda: len(self._stage.deployment().rejected) > rejections,
            seconds=ROLLOUT_SECONDS,
            what=f"version {run.status.model_version} to be rejected",
        )
        rejected = self._stage.deployment().rejected[0]
        _require(rejected.version == run.status.model_version, f"the rejected version is {rejected.version}")
        _require(rejected.reason == "Harm", f"it was rejected with reason {rejected.reason}: {rejected.message}")
        _require(self._stage.stable_version() == before, f"version {before} no longer serves")
        passed = [gate.name for gate in run.status.gates if gate.verdict == "Passed"]
        visits = self._stage.traffic.of(run.status.model_version, 0)
        if visits.decisions:
            name = f"version {rejected.version} (rejected), of the loyalty oracle over the no-loyalty oracle"
            self.result.shares[name] = _share(visits.expected, visits.oracle, visits.loyal_oracle)
        return {
            "passed offline:": ", ".join(passed),
            "rejected:": f"version {rejected.version}. {rejected.message}",
        }

    def _change(self) -> Mapping[str, str]:
        traffic, known = self._stage.traffic, {run.metadata.name for run in self._stage.runs()}
        frozen = self._stage.stable_version()
        before = traffic.decisions
        traffic.change(Market(self._market.parameters.after_change()))
        self._stage.wait(
            lambda: any(run.metadata.name not in known for run in self._stage.runs()),
            seconds=ROLLOUT_SECONDS,
            what="the loop to start a retraining",
        )
        noticed = traffic.decisions - before
        started = next(run for run in self._stage.runs() if run.metadata.name not in known)
        run = self._run(started.metadata.name.removeprefix(f"{PROJECT}-"), cause="Calibration")
        promoted = self._promoted(run)
        self._enough_of(run)
        new, old = traffic.of(run.status.model_version, traffic.epoch), traffic.of(frozen, traffic.epoch)
        # The two versions decided for other visits, so each is compared with the oracle on its own.
        recovered = 1 - new.regret / old.regret
        self.result.shares[f"version {run.status.model_version}, of the new oracle over the frozen policy"] = recovered
        self._stage.close_shop()
        traffic.check()
        _require(recovered >= LEAST_RECOVERED, f"only {recovered:.0%} of what the new oracle recovers was recovered")
        told = dict(run.spec.trigger.evidence)
        message = told.pop("message", "").rstrip(".")
        evidence = ", ".join(f"{name} {value}" for name, value in sorted(told.items()))
        return {
            "noticed:": f"retraining began {noticed:,} decisions after the change: {message} ({evidence})",
            **promoted,
            "recovered:": f"{recovered:.0%} of what the new oracle earns over the frozen policy",
        }

    def _run(self, suffix: str, *, cause: str) -> TrainingRun:
        name = f"{PROJECT}-{suffix}"
        began = time.monotonic()
        run = self._stage.wait_for_run(name, seconds=RUN_SECONDS)
        self.result.durations[f"TrainingRun {name}"] = time.monotonic() - began
        _require(run.spec.trigger.cause == cause, f"{name} has cause {run.spec.trigger.cause}, not {cause}")
        return run

    def _promoted(self, run: TrainingRun) -> Mapping[str, str]:
        before = self._stage.stable_version()
        began = time.monotonic()
        decisions = self._stage.wait_for_stable(run.status.model_version, seconds=ROLLOUT_SECONDS)
        self.result.durations[f"rollout of version {run.status.model_version}"] = time.monotonic() - began
        over = f"version {before}" if before else "today's prices"
        matured, evidence = self._last_evidence()
        return {
            "promoted:": f"version {run.status.model_version} over {over} after {decisions:,} decisions",
            "evidence:": f"{evidence}, shortly before, of {matured:,} matured outcomes",
        }

    def _last_evidence(self) -> tuple[int, str]:
        """The intervals of a rollout as they were last seen, and the matured outcomes that they are made of."""
        for scene in reversed(self._stage.scenes):
            analysis = scene.deployment.status.analysis if scene.deployment else None
            if analysis and analysis.intervals:
                matured = analysis.outcomes_stable + analysis.outcomes_candidate
                return matured, ", ".join(interval_of(each) for each in analysis.intervals)
        return 0, "none was seen"

    def _enough_of(self, run: TrainingRun) -> None:
        traffic, version = self._stage.traffic, run.status.model_version
        self._stage.wait(
            lambda: traffic.of(version, traffic.epoch).decisions >= JUDGED_DECISIONS,
            seconds=ROLLOUT_SECONDS,
            what=f"{JUDGED_DECISIONS:,} decisions of version {version}",
        )


def open_stage(state: StateDir, view: View) -> tuple[Story, Stage, environment.Addresses]:
    """Checks the market, starts the environment, and sets the stage. Raises DrivetrainError for an unchecked market."""
    parameters = Parameters()
    require_checked(parameters, CheckedProject())
    contexts = read_contexts()
    world = World(parameters, contexts)
    view.say("Customers are SYNTHETIC: " + sentence({name: f"{value:g}" for name, value in asdict(parameters).items()}))
    view.say("Seeds: " + sentence({name: str(seed) for name, seed in seeds().items()}))
    told = sentence({f"{name}:": f"{limit:,}" for name, limit in LIMITS.items()})
    view.say(f"Matured decisions that sufficed in {LEAST_RIGHT:.0%} of {RUNS} simulated runs: {told}")
    rates = sentence({f"{name}:": f"{rate:.3f}" for name, rate in world.purchase_rates().items()})
    view.say(f"Share of visits that buy, at least {CheckedProject().purchase_minimum:g} of a candidate's: {rates}")
    view.say("USD a visit: " + sentence({f"{name}:": f"{gap:.3f}" for name, gap in world.gaps().items()}))
    began = time.monotonic()
    addresses = environment.up(state, view.progress)
    view.say("All components are ready")
    stage = Stage(state, view, addresses, contexts)
    story = Story(stage, view, world)
    story.result.durations["all components ready"] = time.monotonic() - began
    return story, stage, addresses


def sentence(facts: Mapping[str, str]) -> str:
    """Facts in one line."""
    return "; ".join(f"{name} {value}" for name, value in facts.items())


def _share(reached: float, low: float, high: float) -> float:
    return (reached - low) / (high - low)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DrivetrainError(f"Not as the story goes: {otherwise}.")
