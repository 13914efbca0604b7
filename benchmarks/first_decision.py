"""How long from `kubectl apply` to the first decision served, and to the first one by a trained model, when embedded.

Starts an environment of its own in a temporary folder (its start is shown and not counted: a cluster is there before
its projects), uploads past renewals, applies `examples/renewals/project.yaml`, and asks /v1/decide from outside as soon
as the Deployment has an address. Today's policy answers first; version 1 decides as soon as its rollout begins.
Wall-clock times mean little on a busy machine: compare the phases of one run, and runs on the same machine.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import boto3
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import ROOT, conditions, table
from drivetrain.api.documents import Document
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, TRAINING_RUN, Ref
from drivetrain.api.meta import condition_of
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.session import Session
from drivetrain.local import environment
from drivetrain.local.statedir import StateDir
from examples.renewals.market import Subscribers, history

PROJECT = "renewals"
NAMESPACE = "default"
ROWS = 20
"""Subscribers in each request."""
POLL_SECONDS = 0.2


class Clock:
    """When each phase was first seen, in seconds since the project was applied."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.seen: dict[str, float] = {}

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def saw(self, phase: str) -> None:
        """Takes note of a phase, once."""
        if phase not in self.seen:
            self.seen[phase] = self.now()
            print(f"{self.seen[phase]:7.1f} s  {phase}", flush=True)


class Renewals:
    """The example project in a running environment."""

    def __init__(self, state: StateDir, addresses: environment.Addresses, rows: int) -> None:
        self._session = Session.open(kubeconfig=state.kubeconfig, namespace=NAMESPACE)
        self._key = secrets.token_urlsafe(16)
        self._rng = np.random.default_rng(1)
        self._sent = 0
        store = boto3.client(
            "s3",
            endpoint_url=addresses.s3,
            aws_access_key_id=addresses.s3_access_key,
            aws_secret_access_key=addresses.s3_secret_key,
            region_name="us-east-1",
        )
        past = history(rows, self._rng).write_csv().encode()
        store.put_object(Bucket=addresses.bucket, Key="renewals-sources/past.csv", Body=past)
        keys: Document = {"decide": self._key, "outcomes": secrets.token_urlsafe(16)}
        metadata: Document = {"name": "renewals-keys", "namespace": NAMESPACE}
        self._session.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})

    def apply(self) -> None:
        """What `kubectl apply --server-side` does."""
        document: Document = yaml.safe_load((ROOT / "examples" / "renewals" / "project.yaml").read_text())
        self._session.apply({**document, "metadata": {"name": PROJECT, "namespace": NAMESPACE}})

    def look(self, clock: Clock) -> None:
        """Takes note of how the run stands. Raises DrivetrainError when it ended without a version."""
        for document in self._session.list(TRAINING_RUN):
            run = TrainingRun.parse(document)
            clock.saw("the TrainingRun exists")
            if run.status.ray_job:
                clock.saw("its RayJob exists")
            if run.status.stage:
                clock.saw(f"stage {run.status.stage} is reported")
            if condition_of(run.status.conditions, "Complete"):
                clock.saw("its version is approved")
            if condition_of(run.status.conditions, "Stalled"):
                raise DrivetrainError(f"{run.metadata.name} ended: {run.status.why}")

    def ask(self, clock: Clock) -> bool:
        """Asks for decisions once there is an address; whether a trained version made one of them."""
        found = self._session.get(Ref(DEPLOYMENT, NAMESPACE, PROJECT))
        if found is None:
            return False
        clock.saw("the Deployment exists")
        url = Deployment.parse(found).status.url
        if url is None:
            return False
        clock.saw("the Deployment has an address")
        rows = Subscribers.draw(ROWS, self._rng).rows(first=self._sent).to_dicts()
        self._sent += ROWS
        request = urllib.request.Request(
            f"{url}/v1/decide",
            json.dumps({"rows": rows}).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                decided = json.load(answer)["rows"]
        except OSError:  # not listening yet, or not ready yet (HTTPError is one)
            return False
        clock.saw("the first decision is served (today's policy)")
        if not any(row["modelVersion"] for row in decided):
            return False
        clock.saw("the first decision of a trained version is served")
        return True


def main() -> None:
    """Prints each phase as it is seen, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000, help="past renewals (default: 5000)")
    parser.add_argument("--deadline", type=float, default=480.0, help="seconds after which it is given up")
    given = parser.parse_args()
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="first-") as folder:
        state = StateDir(Path(folder))
        try:
            began = time.monotonic()
            addresses = environment.up(state, lambda *_: None)
            print(f"environment ready after {time.monotonic() - began:.0f} s", flush=True)
            project = Renewals(state, addresses, given.rows)
            clock = Clock()
            project.apply()
            while not project.ask(clock):
                project.look(clock)
                if clock.now() > given.deadline:
                    raise DrivetrainError(f"No trained version decided within {given.deadline:.0f} s.")
                time.sleep(POLL_SECONDS)
        finally:
            environment.down(state, lambda *_: None)
    moments = [0.0, *clock.seen.values()]
    lines = [
        (phase, f"{at:.1f}", f"{at - before:.1f}")
        for (phase, at), before in zip(clock.seen.items(), moments, strict=False)
    ]
    print(table(("phase", "s since apply", "s since the phase before"), lines))


if __name__ == "__main__":
    main()
