"""The run spec: a TrainingRun's spec with the project facts copied at its creation, as its driver reads it."""

from drivetrain.api.canonical import digest
from drivetrain.api.meta import ApiModel
from drivetrain.api.v1alpha1.dataset import Dataset
from drivetrain.api.v1alpha1.lever import Exploration, Lever, ProjectDecisions
from drivetrain.api.v1alpha1.objective import Objective
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec, VersionReference
from drivetrain.api.v1alpha1.trainingrun import TrainingRunSpec


class RunSpec(ApiModel):
    """Everything a driver needs to know. Kept in an immutable ConfigMap, used by all attempts."""

    namespace: str
    project: str
    project_uid: str
    run: str
    run_uid: str
    objective: Objective
    levers: tuple[Lever, ...]
    exploration: Exploration
    decisions: ProjectDecisions
    data: Dataset
    tracking_uri: str | None = None
    """The MLflow server; a local store under the working directory when absent."""
    champion: VersionReference | None = None
    """The champion when the run was created: `versus: Champion` gates compare with it."""
    matures_before: str | None = None
    """RFC 3339: decisions younger than this are not in the decision log's snapshot; the run's start when absent."""
    spec: TrainingRunSpec


def objective_hash(objective: Objective) -> str:
    """Names what is optimised: on every run, decision and verdict. Another hash opens another KPI series."""
    return digest({"value": objective.value, "kpi": objective.kpi.model_dump(mode="json", by_alias=True)})[:16]


def training_hash(spec: DrivetrainProjectSpec) -> str:
    """Changes when a changed project spec needs a new training (cause SpecChanged)."""
    return digest(
        {
            "data": spec.data.model_dump(mode="json", by_alias=True),
            "training": spec.training.model_dump(mode="json", by_alias=True),
            "decisions": spec.decisions.model_dump(mode="json", by_alias=True),
            "value": spec.objective.value,
            "metric": spec.objective.model_metric.model_dump(mode="json"),
            "levers": [[lever.name, lever.type, lever.effect] for lever in spec.levers],
        }
    )[:16]
