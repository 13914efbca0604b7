"""How models are built: candidates, tuning, ensembles, gates, and the cluster that does it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivetrain.api.meta import ApiModel, Rule
from drivetrain.api.scalars import DNSLabel, Duration, Identifier, Quantity
from drivetrain.api.v1alpha1.objective import MetricName

Estimator = Literal["LogisticRegression", "LinearRegression", "RandomForest", "LightGBM", "XGBoost"]
EnsembleMethod = Literal["Bagging", "Boosting", "Stacking"]
ParameterValue = bool | int | float | str


class SearchRange(ApiModel):
    """Values that tuning may try for one parameter: choices, or a range."""

    choices: tuple[ParameterValue, ...] = Field(default=(), max_length=32)
    """The values (Grid and Random)."""
    minimum: float | None = None
    """Least value (Random)."""
    maximum: float | None = None
    """Greatest value (Random)."""
    scale: Literal["Linear", "Log"] = "Linear"
    """How a range is drawn from."""
    type: Literal["Float", "Integer"] = "Float"
    """What a range draws."""

    cel: ClassVar = (
        # CEL cannot see `choices`: its items have no single type. The validator below states that half of the rule.
        Rule(
            "has(self.minimum) == has(self.maximum)",
            "a search range takes minimum and maximum together",
            ".minimum",
        ),
        Rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum < self.maximum",
            "search minimum must be below its maximum",
            ".minimum",
        ),
    )

    @model_validator(mode="after")
    def _choices_or_range(self) -> Self:
        if (self.minimum is None) != (self.maximum is None):
            raise ValueError("a search range takes minimum and maximum together")
        if bool(self.choices) == (self.minimum is not None):
            raise ValueError("a search range takes either choices, or minimum and maximum")
        return self


class Candidate(ApiModel):
    """A kind of model to try, with fixed and searched parameters. A dummy baseline is always tried beside them."""

    name: Identifier
    """Name of the candidate in reports."""
    estimator: Estimator
    """Which estimator."""
    parameters: Mapping[Identifier, ParameterValue] = Field(default_factory=dict, max_length=32)
    """Parameters that are fixed, in the estimator's own names."""
    search: Mapping[Identifier, SearchRange] = Field(default_factory=dict, max_length=16)
    """Parameters that tuning may choose."""


class Tuning(ApiModel):
    """How the best parameters are sought."""

    algorithm: Literal["Grid", "Random"] = "Random"
    """Grid tries every combination of choices, in order; Random draws."""
    trials: int = Field(default=8, ge=1, le=1000)
    """Most trials, over all candidates together; each candidate gets at least one, with its fixed parameters."""
    parallel_trials: int | None = Field(default=None, ge=1, le=256)
    """How many run at a time; as many as the cluster has cores when absent."""
    metric: MetricName | None = None
    """Metric on the validation rows that decides; the objective's model metric when absent."""
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    """Seed of draws, folds and estimators."""


class Ensemble(ApiModel):
    """Combinations of tuned candidates that compete with the best single one."""

    methods: tuple[EnsembleMethod, ...] = Field(default=(), max_length=3)
    """Bagging: mean over bootstrap fits of the best candidate. Boosting: a boosted tree model that starts from the best
    candidate's margin. Stacking: a linear model over out-of-fold predictions of all candidates."""


class Gate(ApiModel):
    """A condition on the test rows without which no version is approved."""

    metric: MetricName
    """Which metric."""
    threshold: float | None = None
    """Worst value allowed."""
    versus: Literal["Dummy", "Champion"] | None = None
    """Compare with the dummy baseline or the champion on the same rows, by the paired interval."""
    margin: float = Field(default=0, ge=0)
    """versus: how much worse is still not worse."""
    slice: Identifier | None = None
    """Judge every value of this slice column instead of all rows."""

    cel: ClassVar = (Rule("has(self.threshold) != has(self.versus)", "a gate takes either a threshold or versus"),)

    @model_validator(mode="after")
    def _threshold_or_versus(self) -> Self:
        if (self.threshold is None) == (self.versus is None):
            raise ValueError("a gate takes either a threshold or versus")
        return self


class Evaluation(ApiModel):
    """How a trained model is judged before it may serve."""

    gates: tuple[Gate, ...] = Field(default=(), max_length=16)
    """What it must pass; the latency of the environment and the declared lever effects are always gated."""


class Resources(ApiModel):
    """What a pod asks for."""

    cpu: Quantity = "1"
    """CPUs."""
    memory: Quantity = "2Gi"
    """Memory."""
    gpu: int = Field(default=0, ge=0, le=64)
    """GPUs."""


class ReplicaResources(ApiModel):
    """What an endpoint replica asks for."""

    cpu: Quantity = "1"
    """CPUs."""
    memory: Quantity = "2Gi"
    """Memory."""
    gpu: float = Field(default=0, ge=0, le=8)
    """GPUs: whole ones, or a part of one. Replicas that share a GPU share a Pod, which asks for CPU and memory for as
    many as fit."""

    cel: ClassVar = (
        Rule("self.gpu <= 1.0 || self.gpu == double(int(self.gpu))", "more than one GPU is a whole number"),
    )

    @model_validator(mode="after")
    def _a_part_or_whole_ones(self) -> Self:
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError("more than one GPU is a whole number")
        return self


class Scaling(ApiModel):
    """How many workers train, and what each gets."""

    workers: int = Field(default=0, ge=0, le=1024)
    """Worker pods beside the head."""
    resources_per_worker: Resources = Field(default_factory=Resources)
    """What each asks for."""


class Toleration(ApiModel):
    """A taint that pods may run beside."""

    key: str | None = Field(default=None, max_length=316)
    """Key of the taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the key's value is compared."""
    value: str | None = Field(default=None, max_length=63)
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which effect is tolerated; all when absent."""


class Spread(ApiModel):
    """Spreads the workers over nodes or zones."""

    topology_key: str = Field(default="kubernetes.io/hostname", min_length=1, max_length=316)
    """Node label; workers are spread over its values."""
    max_skew: int = Field(default=1, ge=1, le=64)
    """How uneven the spread may be."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"
    """What happens to a worker that would make it more uneven."""


class Topology(ApiModel):
    """Where the workers lie, seen from each other."""

    required: str | None = Field(default=None, min_length=1, max_length=316)
    """Node label: all workers in one domain of it, or the run waits; needs a topology-aware Kueue queue."""
    preferred: str | None = Field(default=None, min_length=1, max_length=316)
    """Node label: all workers in one domain of it where that fits; needs a topology-aware Kueue queue."""
    spread: tuple[Spread, ...] = Field(default=(), max_length=4)
    """Spreads them, which is what replicas of an endpoint want."""

    cel: ClassVar = (
        Rule("!has(self.required) || !has(self.preferred)", "a topology takes either required or preferred"),
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.required is not None and self.preferred is not None:
            raise ValueError("a topology takes either required or preferred")
        return self


class Cluster(ApiModel):
    """The Ray cluster that does the work. Pod fields are an allow-list."""

    image: str | None = Field(default=None, max_length=512)
    """Image of head and workers; the operator's default when absent."""
    ray_version: str | None = Field(default=None, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", max_length=16)
    """Ray's version inside the image; the operator's default when absent."""
    head: Resources = Field(default_factory=Resources)
    """What the head asks for."""
    node_selector: Mapping[str, Annotated[str, Field(max_length=63)]] = Field(default_factory=dict, max_length=16)
    """Labels that nodes must have."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16)
    """Taints that pods tolerate."""
    runtime_class: DNSLabel | None = None
    """RuntimeClass of the pods, such as the one that GPU nodes ask for."""
    topology: Topology = Field(default_factory=Topology)
    """Where workers lie, seen from each other."""


class Queue(ApiModel):
    """The Kueue queue that admits the work."""

    name: DNSLabel
    """LocalQueue of the namespace."""
    priority_class: DNSLabel | None = None
    """WorkloadPriorityClass."""


class TrainingTemplate(ApiModel):
    """A TrainingRun's spec without what makes it one run: what the loop starts runs from."""

    candidates: tuple[Candidate, ...] = Field(min_length=1, max_length=16)
    """Kinds of model to try."""
    tuning: Tuning = Field(default_factory=Tuning)
    """How the best parameters are sought."""
    ensemble: Ensemble = Field(default_factory=Ensemble)
    """Combinations to try."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """How a model is judged."""
    scaling: Scaling = Field(default_factory=Scaling)
    """Workers."""
    cluster: Cluster = Field(default_factory=Cluster)
    """The Ray cluster."""
    queue: Queue | None = None
    """The queue that admits the run; none when absent."""
    attempts: int = Field(default=3, ge=1, le=10)
    """How often the work may start before the run fails; evictions do not count. After an attempt that could not reach
    the store or MLflow the next one waits: 1 minute, then 5, then 15."""
    deadline: Duration = timedelta(hours=24)
    """Longest time that all attempts together hold resources."""
    ttl_after_finished: Duration | None = None
    """Age after its end at which the run is deleted; kept when absent."""

    @property
    def gpus(self) -> int:
        """GPUs that the run holds while it trains."""
        return self.cluster.head.gpu + self.scaling.workers * self.scaling.resources_per_worker.gpu
