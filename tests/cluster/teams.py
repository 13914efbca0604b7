"""A team of the example: its namespace, its account and bucket on the evaluation's S3 server, and its manifests."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from drivetrain.api.documents import Document
from tests.cluster.clusters import s3_at
from tests.cluster.forwarding import forwarded
from tests.cluster.kubectl import Kubectl
from tests.cluster.release import NAME, NAMESPACE, a_namespace, run

ENABLED = {"drivetrain.dev/enabled": "true", "drivetrain.dev/gateway": "true"}
PREPARED_SECONDS = 300
SMALL = {"head": {"cpu": "150m", "memory": "4Gi"}}
"""A Ray cluster of which a test node takes several."""


@dataclass(frozen=True, slots=True)
class Team:
    """Whoever works in one namespace."""

    kubectl: Kubectl

    @property
    def name(self) -> str:
        """Of namespace, account and bucket."""
        return self.kubectl.namespace

    def prepare(self) -> None:
        """Runs the documented command: account, bucket, Secrets, past renewals."""
        run("examples/pool/prepare", self.name, NAMESPACE, seconds=PREPARED_SECONDS)

    def project(self) -> dict[str, Any]:
        """The example's project as `kubectl apply -k examples/pool/team-a` would apply it, for this team."""
        told = run("kubectl", "kustomize", "examples/pool/team-a", seconds=30)
        found: dict[str, Any] = yaml.safe_load(re.sub(r"\bteam-a\b", self.name, told))
        return found

    @contextmanager
    def s3(self) -> Iterator[Any]:
        """The evaluation's S3 server with the team's own key; one connection."""
        keys = self.secret("s3")
        with forwarded(self.kubectl.within(NAMESPACE), f"service/{NAME}-s3", 7070) as url:
            yield s3_at(url, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])

    def secret(self, name: str) -> Mapping[str, str]:
        """The keys of a Secret, as whoever may read it sees them."""
        found = json.loads(self.kubectl("get", "secret", name, "-o", "jsonpath={.data}"))
        return {key: _decoded(each) for key, each in found.items()}


def enabled(name: str) -> Document:
    """A namespace that the operator looks after, and whose Pods may call endpoints."""
    return a_namespace(name, **ENABLED)


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
