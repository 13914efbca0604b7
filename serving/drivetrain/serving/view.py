"""What a replica decides with: an immutable view of the configuration and its loaded policies."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from drivetrain.api.policy import EndpointConfig
from drivetrain.api.runspec import objective_hash
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.contract import RequestContract, contract_of
from drivetrain.serving.graph import Graph
from drivetrain.serving.loader import Variant


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What realised values taught about promised ones, for one policy: added to its expected values."""

    offset: float
    radius: float
    """Half-width of the offset's confidence interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """Everything a decision depends on; swapped as a whole, never changed."""

    config: EndpointConfig
    stable: Variant
    baseline: Variant
    candidate: Variant | None
    exploration: Exploration
    contract: RequestContract
    recalibrations: Mapping[str, Recalibration] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        config: EndpointConfig,
        stable: Variant,
        baseline: Variant,
        candidate: Variant | None = None,
        *,
        exploration: Exploration | None = None,
        recalibrations: Mapping[str, Recalibration] | None = None,
    ) -> "Serving":
        """The view of a configuration whose variants are loaded."""
        return cls(
            config=config,
            stable=stable,
            baseline=baseline,
            candidate=candidate,
            exploration=exploration or config.exploration,
            contract=contract_of(
                stable.policy,
                stable.graph.contract if stable.graph else None,
                baseline.policy,
                candidate.policy if candidate else None,
                candidate.graph.contract if candidate and candidate.graph else None,
            ),
            recalibrations=recalibrations or {},
        )

    @property
    def frozen(self) -> Graph | None:
        """The model whose predictions adjust the comparison: stable's, or the candidate's when stable has none."""
        if self.stable.graph is not None:
            return self.stable.graph
        return self.candidate.graph if self.candidate is not None else None

    @property
    def measured(self) -> Valuation:
        """The objective that values both arms: the candidate's, which is the newer one."""
        return (self.candidate or self.stable).valuation

    @property
    def objective(self) -> str:
        """Hash of the objective by which both arms are measured."""
        return objective_hash(self.measured.policy.objective)

    @property
    def scored(self) -> tuple[str, ...]:
        """The fields on which decisions depend."""
        contract = self.contract
        names = [name for name, given in contract.fields.items() if given.required and name != contract.unit]
        names += contract.candidate_only
        for variant in (self.stable, self.candidate):
            names += variant.graph.context if variant is not None and variant.graph is not None else ()
        return tuple(dict.fromkeys(name for name in names if name in contract.fields))

    @property
    def weight(self) -> float:
        """The candidate's share among units outside the holdout."""
        return self.config.weight / 100 if self.candidate is not None and self.config.rollout is not None else 0.0
