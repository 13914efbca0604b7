"""`drivetrain validate`: what admission and the operator would say, offline, with file and line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.kinds import GROUP
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.api.validation import validate_deployment, validate_project, validate_run
from drivetrain.cli.manifests import Manifest, ManifestError, read

Known = DrivetrainProject | TrainingRun | Deployment
_KINDS: dict[str, type[DrivetrainProject] | type[TrainingRun] | type[Deployment]] = {
    "DrivetrainProject": DrivetrainProject,
    "TrainingRun": TrainingRun,
    "Deployment": Deployment,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and where it stands."""

    path: Path
    line: int
    problem: Problem

    def __str__(self) -> str:
        told = " ".join(str(self.problem).split())  # an expression of several lines is still one finding
        return f"{self.path}:{self.line}: {told}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was checked and what was found; documents of other groups are counted, not judged."""

    checked: int
    other: int
    findings: tuple[Finding, ...]
    unreadable: tuple[str, ...] = ()
    """Why a file, or the rest of it, was not checked."""
    manifests: tuple[Manifest, ...] = ()
    """What was read, for whoever goes on with it: a pipe can be read once only."""

    @property
    def problems(self) -> int:
        """How many faults there are."""
        return len(self.findings) + len(self.unreadable)


def validate(paths: Sequence[Path]) -> Verdict:
    """Checks every document of ours in the files; runs and deployments against their project where it is among them."""
    manifests: list[Manifest] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            for manifest in read(path):
                manifests.append(manifest)  # one by one: what stands before a fault is checked
        except ManifestError as error:
            unreadable.append(str(error))
    ours = [manifest for manifest in manifests if manifest.group == GROUP]
    findings: list[Finding] = []
    parsed: list[tuple[Manifest, Known]] = []
    for manifest in ours:
        model = _KINDS.get(manifest.kind)
        if model is None:
            known = ", ".join(_KINDS)
            problem = Problem("kind", f"{GROUP} has no kind {manifest.kind!r}.", f"Use one of {known}.")
            findings.append(Finding(manifest.path, manifest.line("kind"), problem))
            continue
        try:
            parsed.append((manifest, model.parse(manifest.content)))
        except InvalidSpecError as error:
            findings += located(manifest, error.problems)
    projects = {_key(item): item for _, item in parsed if isinstance(item, DrivetrainProject)}
    serving: dict[tuple[str, str], str] = {}
    for manifest, item in parsed:
        findings += located(manifest, _problems(item, projects))
        if isinstance(item, Deployment) and item.spec.project is not None:
            served = item.metadata.namespace, item.spec.project
            first = serving.setdefault(served, item.metadata.name)
            if first != item.metadata.name:
                cause = f"Deployment {first} serves project {item.spec.project} already."
                findings += located(manifest, (Problem("spec.project", cause, "Delete one of the two."),))
    findings.sort(key=lambda finding: (str(finding.path), finding.line))
    return Verdict(len(ours), len(manifests) - len(ours), tuple(findings), tuple(unreadable), tuple(manifests))


def _problems(item: Known, projects: dict[tuple[str, str], DrivetrainProject]) -> tuple[Problem, ...]:
    if isinstance(item, DrivetrainProject):
        return validate_project(item)
    project = projects.get((item.metadata.namespace, item.spec.project or ""))
    if isinstance(item, TrainingRun):
        return validate_run(item, project)
    return validate_deployment(item, project)


def _key(project: DrivetrainProject) -> tuple[str, str]:
    return project.metadata.namespace, project.metadata.name


def located(manifest: Manifest, problems: Iterable[Problem]) -> list[Finding]:
    """The problems with the lines on which their fields stand."""
    return [Finding(manifest.path, manifest.line(problem.field), problem) for problem in problems]
