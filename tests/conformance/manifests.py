"""RayJobs as the operator renders them and a small RayService: the same for both parties."""

import json
from pathlib import Path
from typing import Any

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import Document
from drivetrain.api.kinds import CONFIG_MAP, RAY_SERVICE, SECRET, SERVICE_ACCOUNT, TRAINING_RUN, Kind
from drivetrain.api.names import SPEC_KEY, account_name, spec_name
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.dataset import SecretReference
from drivetrain.api.v1alpha1.training import Cluster, Resources
from drivetrain.controller.manifests import pods
from drivetrain.controller.manifests.metadata import Owner
from drivetrain.controller.manifests.ray_cluster import PORTS, Group, Runtime, ray_cluster
from drivetrain.controller.manifests.ray_job import Part, ray_job
from tests.conformance.party import Party
from tests.support.shop import a_dataset, a_run

RAY_VERSION = "2.60.0"
PROGRAMS = Path(__file__).with_name("programs")
PROGRAM = "/etc/program"
KEYS = "keys"
"""The Secret that opens the store."""
LATE = "late"
"""The Secret of the same content that is missing at first."""
GRACE_SECONDS = 10
"""Of heads: a Ray container never ends before its grace is over, and `test_kuberay_contract` shows what that means."""
SMALL = Resources(cpu="1", memory="2Gi")
REQUESTS = {"cpu": "100m", "memory": "256Mi"}
"""Of every Pod: all clusters of the cases stand at a time, on two cores."""


def surroundings(party: Party) -> tuple[Document, ...]:
    """What all manifests refer to, but for the Secret that comes late."""
    spec = _run_spec(party, KEYS)
    return (
        _object(CONFIG_MAP, "program", data={"word.py": (PROGRAMS / "word.py").read_text()}),
        _object(CONFIG_MAP, spec_name(spec.run), data={SPEC_KEY: canonical_json(spec)}),
        _object(SERVICE_ACCOUNT, account_name(TRAINING_RUN.kind, spec.run)),
        secret(party, KEYS),
    )


def secret(party: Party, name: str) -> Document:
    """A Secret that opens the store."""
    return _object(SECRET, name, stringData=dict(party.keys))


def job(
    party: Party, name: str, entrypoint: str, *, keys: str = KEYS, retries: int = 0, suspend: bool | None = None
) -> Document:
    """The RayJob of a run's first attempt, with another entrypoint."""
    spec = _run_spec(party, keys)
    owner = Owner(TRAINING_RUN, party.namespace, spec.run, spec.run_uid, spec.project)
    made = _mutable(ray_job(owner, spec, Part(1), Runtime(party.image, RAY_VERSION)))
    made["metadata"] = {"name": name, "namespace": party.namespace, "labels": made["metadata"]["labels"]}
    body = made["spec"]
    body |= {"entrypoint": entrypoint, "backoffLimit": retries} | ({} if suspend is None else {"suspend": suspend})
    submitter = body["submitterPodTemplate"]["spec"]
    submitter["containers"][0]["command"][-1] = entrypoint
    head = body["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    head["terminationGracePeriodSeconds"] = GRACE_SECONDS
    for pod in (submitter, head):
        _shrink(pod)
    return made


def service(party: Party, name: str, import_path: str, word: str) -> Document:
    """A RayService of a head alone, as the operator's: KubeRay replaces no cluster of it."""
    plan = pods.PodPlan(
        container="ray-head",
        image=party.image,
        resources=SMALL,
        account="default",
        labels={"conformance/service": name},
        environment=(*pods.base_environment(reports=False), *pods.variables({"PYTHONPATH": PROGRAM})),
        mounts=(pods.config_map("program", PROGRAM, "program"),),
        ports=PORTS,
    )
    head = Group(pods.template(plan, Cluster()), plan.resources)
    cluster = _mutable(ray_cluster(Runtime(party.image, RAY_VERSION), head=head, worker=None, workers=0))
    pod = cluster["headGroupSpec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = GRACE_SECONDS
    _shrink(pod)
    deployment = {"name": "Word", "user_config": {"word": word}}
    application = {"name": "word", "route_prefix": "/", "import_path": import_path, "deployments": [deployment]}
    serve = {
        "http_options": {"host": "0.0.0.0", "port": PORTS["serve"]},  # noqa: S104 - inside a Pod
        "applications": [application],
    }
    made = _object(
        RAY_SERVICE,
        name,
        spec={
            "upgradeStrategy": {"type": "None"},
            "serveConfigV2": json.dumps(serve),
            "rayClusterConfig": cluster,
        },
    )
    return {**made, "metadata": {"name": name, "namespace": party.namespace, "labels": {"conformance/service": name}}}


def _run_spec(party: Party, keys: str) -> RunSpec:
    """A run over a small shop whose store is the party's."""
    store = party.store.model_copy(update={"credentials": SecretReference(secret_name=keys)})
    spec = a_run(a_dataset().model_copy(update={"store": store}))
    return spec.model_copy(update={"namespace": party.namespace})


def _object(kind: Kind, name: str, **fields: Any) -> Document:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **fields}


def _shrink(pod: dict[str, Any]) -> None:
    pod["containers"][0]["resources"]["requests"] |= REQUESTS


def _mutable(document: Document) -> dict[str, Any]:
    made = json.loads(json.dumps(document))
    assert isinstance(made, dict)
    return made
