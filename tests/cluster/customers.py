"""The example's customers in a Pod beside the endpoint, which ask it through its Service."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from drivetrain.api.documents import Document
from drivetrain.api.v1alpha1.training import Cluster, Resources
from drivetrain.controller.manifests import pods
from tests.cluster.clusters import PROGRAMS
from tests.cluster.kubectl import Kubectl, until
from tests.cluster.release import ROOT

NAME = "customers"
MARKET = ROOT / "examples" / "renewals" / "market.py"
PLACE = "/etc/customers"
KEYS = {"DECIDE": "decide", "OUTCOMES": "outcomes"}
STARTED_SECONDS = 60
ENDED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Customers:
    """A running Pod."""

    team: Kubectl

    def spend(self, share: float) -> None:
        """From now on they spend this share of what they spent in the beginning."""
        self.team("exec", NAME, "--", "sh", "-c", f"echo {share} > /tmp/spending")

    def told(self) -> Mapping[str, Any]:
        """What came of it so far: requests `asked`, `failures`, rows `decided` by version, `outcomes` acknowledged."""
        lines = self.team.logs(NAME, "--tail=1").splitlines()
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {"failures": {}, "decided": {}, "outcomes": 0}
        return found


@contextmanager
def customers(team: Kubectl, image: str, url: str, keys: str) -> Iterator[Customers]:
    """Customers who ask `url` with the keys of the Secret `keys`; they are gone afterwards."""
    source = {"market.py": MARKET.read_text(), "customers.py": (PROGRAMS / "customers.py").read_text()}
    team.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": source},
        _pod(image, url, keys),
    )
    team("wait", f"pod/{NAME}", "--for=condition=Ready", f"--timeout={STARTED_SECONDS}s", seconds=STARTED_SECONDS + 30)
    here = Customers(team)
    until(lambda: here.told()["outcomes"], STARTED_SECONDS, "customers are answered")
    yield here
    team("exec", NAME, "--", "touch", "/tmp/stop")
    team("wait", f"pod/{NAME}", "--for=jsonpath={.status.phase}=Succeeded", f"--timeout={ENDED_SECONDS}s", seconds=90)
    team("delete", f"pod/{NAME}", f"configmap/{NAME}")


def _pod(image: str, url: str, keys: str) -> Document:
    secret: tuple[Document, ...] = tuple(
        {"name": name, "valueFrom": {"secretKeyRef": {"name": keys, "key": key}}} for name, key in KEYS.items()
    )
    plan = pods.PodPlan(
        container=NAME,
        image=image,
        resources=Resources(cpu="10m", memory="512Mi"),
        account="default",
        labels={"app": NAME},
        environment=secret,
        mounts=(pods.config_map(NAME, PLACE, NAME),),
        restart_policy="Never",
        command=("python", f"{PLACE}/customers.py", url),
    )
    template = pods.template(plan, Cluster())
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": NAME, "labels": {"app": NAME}}}
