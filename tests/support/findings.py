"""What validation says of a document, and projects with other targets than the usual one."""

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.api.validation import validate_deployment, validate_project, validate_run
from tests.support.builders import Manifest, ProjectBuilder, a_project

BRAND = {"name": "brand", "type": "Multiclass", "classes": ["CH", "MM", "none"]}
SALES = {"name": "sales", "type": "Regression", "minimum": 0, "maximum": 50}


def a_multiclass_project() -> ProjectBuilder:
    return (
        a_project()
        .with_target(**BRAND)
        .with_value("(brand = 'CH') * (price - discount - 1.1)")
        .with_lever("price", effect="Unknown")
        .with_lever("discount", effect="Unknown")
    )


def a_regression_project() -> ProjectBuilder:
    return (
        a_project()
        .with_target(**SALES)
        .with_value("sales * (price - discount - 1.1)")
        .with_field("spec.objective.kpi", {"name": "margin", "unit": "USD"})
        .with_field("spec.objective.modelMetric", {"name": "rmse", "direction": "Minimize"})
        .with_field("spec.training.candidates", [{"name": "linear", "estimator": "LinearRegression"}])
    )


def problems(manifest: Manifest) -> tuple[Problem, ...]:
    """What `drivetrain validate` says of one document."""
    try:
        match manifest["kind"]:
            case "TrainingRun":
                return validate_run(TrainingRun.parse(manifest), a_project().build())
            case "Deployment":
                return validate_deployment(Deployment.parse(manifest), a_project().build())
        return validate_project(DrivetrainProject.parse(manifest))
    except InvalidSpecError as error:
        return error.problems


def assert_told(built: ProjectBuilder, field: str, words: str) -> None:
    """One problem of `field` says all the words: its cause and remedy are among them."""
    found = problems(built.document())
    told = [str(problem) for problem in found if problem.field == field]
    assert told, [str(problem) for problem in found]
    assert any(all(word in text for word in words.split()) for text in told), told
