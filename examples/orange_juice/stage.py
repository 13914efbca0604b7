"""The demo's stage: an environment, a session, the project's files, and the visitors."""

import io
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import polars as pl
import yaml

from drivetrain.api.documents import Document
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN, Ref
from drivetrain.api.meta import condition_of
from drivetrain.api.v1alpha1.deployment import Deployment, DeploymentStatus
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.session import Session
from drivetrain.local.environment import Addresses
from drivetrain.local.statedir import StateDir
from drivetrain.pipelines import versions
from drivetrain.store import open_store
from examples.orange_juice.market import Contexts, Market
from examples.orange_juice.power import SEED as POWER_SEED
from examples.orange_juice.traffic import Record, Traffic
from examples.orange_juice.view import Scene, View

HERE = Path(__file__).parent
PROJECT = "orange-juice"
NAMESPACE = "default"
SOURCES = "orange-juice-sources"
KEYS_SECRET = "orange-juice-keys"  # noqa: S105 - the name of a Secret, not its content
SEED = 20
RATE = 1_500.0
"""Visitors a second, at most: the endpoint, the Monitor and the operator share two cores."""
_POLL_SECONDS = 0.5


class Stage:
    """What the acts play with. Every wait shows the loop, and ends when a visitor or a run fails."""

    def __init__(self, state: StateDir, view: View, addresses: Addresses, contexts: Contexts) -> None:
        self._view = view
        self._addresses = addresses
        self._contexts = contexts
        self._traffic: Traffic | None = None
        self._s3 = boto3.client(
            "s3",
            endpoint_url=addresses.s3,
            aws_access_key_id=addresses.s3_access_key,
            aws_secret_access_key=addresses.s3_secret_key,
            region_name="us-east-1",
        )
        self.keys: Mapping[str, str] = {
            "decide": secrets.token_urlsafe(24),
            "outcomes": secrets.token_urlsafe(24),
        }
        self.session = Session.open(kubeconfig=state.kubeconfig, namespace=NAMESPACE)
        self.scenes: list[Scene] = []

    @property
    def traffic(self) -> Traffic:
        """The visitors. Raises DrivetrainError before the shop is open."""
        if self._traffic is None:
            raise DrivetrainError("The shop is not open yet.")
        return self._traffic

    def open_shop(self, market: Market) -> None:
        """Sends visitors to the endpoint from now on."""
        url = self.deployment().url
        if url is None:
            raise DrivetrainError("The endpoint has no address.", remedy=f"See `kubectl describe dtd {PROJECT}`.")
        self._traffic = Traffic(url, keys=self.keys, contexts=self._contexts, market=market, seed=SEED + 1, rate=RATE)
        self._traffic.start()

    def close_shop(self) -> None:
        """Sends no more visitors; why they failed, if they did, an act has told."""
        if self._traffic is not None:
            self._traffic.stop()

    @property
    def record(self) -> Record:
        """What the visitors have seen; nothing before the shop is open."""
        return Record() if self._traffic is None else self._traffic.record

    # ---- files ----------------------------------------------------------------------------------------------------

    def manifest(self, file: str) -> Document:
        """A manifest of the example."""
        document: Document = yaml.safe_load((HERE / file).read_text(encoding="utf-8"))
        return {**document, "metadata": {"name": PROJECT, "namespace": NAMESPACE}}

    def upload(self, file: str, frame: pl.DataFrame) -> None:
        """Writes one of the project's sources."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self._s3.put_object(Bucket=self._addresses.bucket, Key=f"{SOURCES}/{file}", Body=buffer.getvalue())

    def rewrite_version(self, version: str, change: Callable[[pl.DataFrame], pl.DataFrame], *, note: str) -> str:
        """A new data version made from another one's rows."""
        found = self.session.get(Ref(DRIVETRAIN_PROJECT, NAMESPACE, PROJECT))
        if found is None:
            raise DrivetrainError(f"There is no project {PROJECT}.")
        declared = DrivetrainProject.parse(found).spec.data.store
        place = declared.model_copy(update={"endpoint": declared.endpoint or self._addresses.s3})
        store = open_store(
            place,
            {
                "AWS_ACCESS_KEY_ID": self._addresses.s3_access_key,
                "AWS_SECRET_ACCESS_KEY": self._addresses.s3_secret_key,
            },
        )
        manifest = replace(versions.manifest_of(store, version), note=note)
        return versions.write(store, place, change(versions.read(store, version)), manifest).md5

    # ---- what the API server says ---------------------------------------------------------------------------------

    def deployment(self) -> DeploymentStatus:
        """How the endpoint stands; an empty status while there is none."""
        found = self.session.get(Ref(DEPLOYMENT, NAMESPACE, PROJECT))
        return Deployment.parse(found).status if found else DeploymentStatus()

    def runs(self) -> tuple[TrainingRun, ...]:
        """All training runs."""
        return tuple(TrainingRun.parse(document) for document in self.session.list(TRAINING_RUN))

    def stable_version(self) -> str | None:
        """The model version that serves; None for today's policy."""
        stable = self.deployment().stable
        return stable.version if stable else None

    def is_open(self) -> bool:
        """Whether the endpoint answers. Raises DrivetrainError when it needs somebody first."""
        status = self.deployment()
        ready, stalled = (condition_of(status.conditions, kind) for kind in ("Ready", "Stalled"))
        if stalled is not None and stalled.status == "True":
            raise DrivetrainError(f"The endpoint is Stalled: {stalled.message}")
        return status.url is not None and ready is not None and ready.status == "True"

    def why(self) -> str:
        """Everything that gives a reason now, for a failed act."""
        return " | ".join(self._scene().lines())

    # ---- waiting --------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Returns when `condition` holds; shows the loop meanwhile. Raises DrivetrainError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._traffic is not None:
                self._traffic.check()
            scene = self._scene()
            self.scenes.append(scene)
            self._view.show(scene)
            if time.monotonic() > deadline:
                raise DrivetrainError(f"Waited {seconds:.0f} s for {what}.")
            time.sleep(_POLL_SECONDS)

    def wait_for_run(self, name: str, *, seconds: float) -> TrainingRun:
        """The run once its version is approved. Raises DrivetrainError when it ends otherwise."""

        def approved() -> bool:
            run = next((run for run in self.runs() if run.metadata.name == name), None)
            if run is None:
                return False
            if condition_of(run.status.conditions, "Stalled"):
                raise DrivetrainError(f"{name} ended: {run.status.why}")
            return condition_of(run.status.conditions, "Complete") is not None

        self.wait(approved, seconds=seconds, what=f"TrainingRun {name}")
        return next(run for run in self.runs() if run.metadata.name == name)

    def wait_for_stable(self, version: str | None, *, seconds: float) -> int:
        """Waits until `version` is promoted; returns the decisions made meanwhile. Raises when it is rejected."""
        before = self.traffic.decisions

        def promoted() -> bool:
            for rejected in self.deployment().rejected:
                if rejected.version == version:
                    raise DrivetrainError(f"Version {version} was rejected: {rejected.message}")
            return self.stable_version() == version

        self.wait(promoted, seconds=seconds, what=f"version {version} to be promoted")
        return self.traffic.decisions - before

    def _scene(self) -> Scene:
        project = self.session.get(Ref(DRIVETRAIN_PROJECT, NAMESPACE, PROJECT))
        deployment = self.session.get(Ref(DEPLOYMENT, NAMESPACE, PROJECT))
        return Scene(
            at=time.time(),
            decisions=self._traffic.decisions if self._traffic else 0,
            project=DrivetrainProject.parse(project) if project else None,
            deployment=Deployment.parse(deployment) if deployment else None,
            runs=self.runs(),
        )


def seeds() -> dict[str, int]:
    """Everything that is drawn in the demo and its power check, by who draws it."""
    manifest = yaml.safe_load((HERE / "project.yaml").read_text(encoding="utf-8"))
    tuning = manifest["spec"]["training"]["tuning"]["seed"]
    return {"history": SEED, "visitors": SEED + 1, "tuning": int(tuning), "power check": POWER_SEED}


def generator() -> np.random.Generator:
    """The story's randomness."""
    return np.random.default_rng(SEED)
