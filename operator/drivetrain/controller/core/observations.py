"""What each decision is made from: typed snapshots, read by `drivetrain.controller.cluster.observation`."""

from collections.abc import Mapping
from dataclasses import dataclass

from drivetrain.api.documents import Document
from drivetrain.api.kinds import Ref
from drivetrain.controller.core.queueing import Line


@dataclass(frozen=True, slots=True)
class RunObserved:
    """A TrainingRun and its surroundings."""

    owner: Document
    live: Mapping[Ref, Document]
    """Ledger, report, spec, account, role, binding and all RayJobs of the run."""
    project: Document | None
    champion_ledger: Document | None
    """Ledger of the Deployment that serves the project: the champion is its stable version. Read for new runs only."""
    ray_jobs: tuple[Document, ...]
    kuberay: bool
    """Whether the API server serves RayJobs."""
    pods: tuple[Document, ...]
    """All Pods with the run's uid, of every attempt."""
    workloads: tuple[Document, ...]
    """Kueue's Workloads for the RayJobs."""
    kueue: bool
    """Whether the API server serves Workloads."""
    line: Line | None = None
    """Where the run stands in its queue; None without one."""


@dataclass(frozen=True, slots=True)
class DeploymentObserved:
    """A Deployment and its surroundings."""

    owner: Document
    live: Mapping[Ref, Document]
    """Ledger, report, policies, account, role, binding, Service, RayServices and their RayClusters."""
    project: Document | None
    project_ledger: Document | None
    run_ledgers: tuple[Document, ...]
    """Ledgers of the project's runs: where a pinned version is looked up."""
    rivals: tuple[Document, ...]
    """All Deployments of the namespace that name the same project, this one included."""
    ray_services: tuple[Document, ...]
    kuberay: bool
    """Whether the API server serves RayServices."""
    pods: tuple[Document, ...]
    queued: bool = False
    """Whether Kueue queues the RayServices of this Deployment, which names a queue."""


@dataclass(frozen=True, slots=True)
class ProjectObserved:
    """A DrivetrainProject and its surroundings."""

    owner: Document
    live: Mapping[Ref, Document]
    """Ledger, TrainingRuns and Deployments."""
    runs: tuple[Document, ...]
    """All TrainingRuns of the namespace that name the project."""
    taken: frozenset[str]
    """Names of all TrainingRuns of the namespace, those of other projects included."""
    run_ledgers: Mapping[str, Document]
    """Name of a run to its ledger, for those that `approvals.runs_to_read` names."""
    deployments: tuple[Document, ...]
    """All Deployments of the namespace that name the project."""
    deployment_ledger: Document | None
    """Of the one that serves the project."""
    deployment_report: Document | None
    ray_services: tuple[Document, ...]
    """Of the same Deployment."""
    champion_report: Document | None
    """Report of the run that made the champion."""
