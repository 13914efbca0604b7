"""An operator process with one toy controller: each TrainingRun gets a ConfigMap and a Ready condition.

`python -m tests.support.toy_operator KUBECONFIG IDENTITY PORT`; PORT is that of its probes.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from drivetrain.api.documents import Document, documents, integer, labels_of, name_of, namespace_of, text, uid_of
from drivetrain.api.kinds import CONFIG_MAP, TRAINING_RUN, WORKLOAD_V1BETA1, Kind, Ref, ref_of
from drivetrain.api.names import OWNER_KIND_LABEL, OWNER_NAME_LABEL, OWNER_UID_LABEL
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.core.plan import Apply, Emit, Plan
from drivetrain.controller.handlers.process import Options, run
from drivetrain.controller.handlers.runtime import Bound, bind


@dataclass(frozen=True, slots=True)
class Seen:
    """A TrainingRun and its ConfigMap."""

    owner: Document
    live: Mapping[Ref, Document]


class Toy:
    """Needs no Ray: it keeps one child and says that it is ready."""

    kind = TRAINING_RUN
    watched: tuple[Kind, ...] = (CONFIG_MAP, WORKLOAD_V1BETA1)

    async def observe(self, cluster: Cluster, ref: Ref) -> Seen | None:
        """See Controller."""
        owner = await cluster.get(ref)
        if owner is None:
            return None
        children = await cluster.list(CONFIG_MAP, ref.namespace, {OWNER_UID_LABEL: uid_of(owner)})
        return Seen(owner, {ref_of(each): each for each in children.items})

    def decide(self, observed: Seen, now: datetime) -> Plan:
        """See Controller."""
        owner = observed.owner
        labels = {
            OWNER_UID_LABEL: uid_of(owner),
            OWNER_KIND_LABEL: "TrainingRun",
            OWNER_NAME_LABEL: name_of(owner),
        }
        before = next(iter(documents(owner, "status", "conditions")), {})
        since = text(before, "lastTransitionTime") or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        child: Document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"toy-{name_of(owner)}", "namespace": namespace_of(owner), "labels": labels},
            "data": {"project": text(owner, "spec", "project"), "touched": labels_of(owner).get("touched", "")},
        }
        return Plan(
            effects=(Apply(child), Emit("Normal", "Kept", "The child is there.")),
            status={
                "observedGeneration": integer(owner, "metadata", "generation"),
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "reason": "Kept",
                        "message": "",
                        "lastTransitionTime": since,
                        "observedGeneration": integer(owner, "metadata", "generation"),
                    }
                ],
            },
        )


async def _controllers(_: Cluster) -> Sequence[Bound]:
    return (bind(Toy()),)


def main(kubeconfig: str, identity: str, port: str) -> None:
    """Run until asked to end."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    options = Options(
        access=from_kubeconfig(Path(kubeconfig)),
        namespaces=("default",),
        lease_namespace="default",
        identity=identity,
        host="127.0.0.1",
        port=int(port),
    )
    asyncio.run(run(options, _controllers))


if __name__ == "__main__":
    main(*sys.argv[1:])
