"""What can go wrong under a project: what is done, what a person then sees, and how it ends.

A fault needs a project on a cluster and the release that runs it, nothing of the tests that suffer it, so a story can
suffer any of them. It leaves the cluster as it was, also when the project did not bear it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from drivetrain.api.documents import (
    Document,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    text,
    texts,
    uid_of,
)
from drivetrain.api.kinds import (
    CLUSTER_QUEUE,
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    LEASE,
    NAMESPACE,
    POD,
    RAY_SERVICE,
    SERVICE,
    TRAINING_RUN,
    Kind,
)
from drivetrain.api.ledger import DeploymentLedger, RunLedger
from drivetrain.api.names import LEDGER_KEY, OWNER_UID_LABEL, ledger_name
from tests.cluster.clusters import condition
from tests.cluster.kubectl import Kubectl, until

DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
GPU = "nvidia.com/gpu"
LEASE_NAME = "drivetrain-operator"
A_MINUTE = 60.0
GONE_SECONDS = 300.0
RELEASE = "drivetrain"


@dataclass(frozen=True, slots=True)
class Scene:
    """A project, and the release that runs it."""

    team: Kubectl
    """In the project's namespace."""
    system: Kubectl
    """In the release's namespace."""
    project: str
    """Its Deployment has the same name."""
    run: str = ""
    """The run that is under way, where there is one."""
    pool: str = ""
    """The ClusterQueue that admits its runs."""

    @property
    def endpoint(self) -> Document:
        """The Deployment as it is."""
        return self.team.get(DEPLOYMENT, self.project) or {}

    @property
    def training(self) -> Document:
        """The run as it is."""
        return self.team.get(TRAINING_RUN, self.run) or {}

    @property
    def serving(self) -> DeploymentLedger:
        """What the operator remembers of the rollout."""
        return DeploymentLedger.model_validate_json(self._ledger(DEPLOYMENT.kind, self.project))

    @property
    def attempts(self) -> RunLedger:
        """What the operator remembers of the run."""
        return RunLedger.model_validate_json(self._ledger(TRAINING_RUN.kind, self.run))

    def says(self, owner: Document, type_: str, reason: str, part: str = "") -> bool:
        """Whether a condition holds, for this reason and with these words in its message."""
        found = condition(owner, type_)
        return (found.get("status"), found.get("reason")) == ("True", reason) and part in text(found, "message")

    def _ledger(self, kind: str, name: str) -> str:
        found = self.team.get(CONFIG_MAP, ledger_name(kind, name))
        return texts(found or {}, "data").get(LEDGER_KEY, "{}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. What `begin` returns names what was hit, for the others."""

    name: str
    begin: Callable[[Scene], str]
    shown: Callable[[Scene, str], bool]
    """Whether a person who looks sees what is the matter."""
    over: Callable[[Scene, str], bool]
    """Whether all goes on."""
    kept: Callable[[Scene], object]
    """What is the same before and afterwards."""
    end: Callable[[Scene, str], None] = lambda scene, hit: None
    """Takes the fault away; nothing where the cluster itself repairs it."""
    lasts: float = 0
    """Seconds, at least."""
    shown_within: float = 120
    over_within: float = 300


@dataclass(frozen=True, slots=True)
class Suffered:
    """How long it took, in seconds."""

    shown: float
    """From the beginning until a person could see it."""
    over: float
    """From the beginning until all went on."""


def suffer(fault: Fault, scene: Scene, meanwhile: Callable[[], object] = lambda: None) -> Suffered:
    """Lets a fault happen, calls `meanwhile` again and again while it lasts, and waits until it is over.

    Fails when nobody could see it, when it does not end, or when something changed that had to stay.
    """
    before = fault.kept(scene)
    began = monotonic()
    hit = fault.begin(scene)
    try:
        until(lambda: fault.shown(scene, hit), fault.shown_within, f"{fault.name}: a person sees it")
        shown = monotonic() - began

        def lasted() -> bool:
            meanwhile()
            return monotonic() >= began + fault.lasts

        until(lasted, fault.lasts + 60, f"{fault.name}: it lasts")
    finally:
        fault.end(scene, hit)
    until(lambda: fault.over(scene, hit), fault.over_within, f"{fault.name}: all goes on")
    assert fault.kept(scene) == before, f"{fault.name}: something changed that had to stay"
    return Suffered(shown, monotonic() - began)


# What must stay.


def what_serves(scene: Scene) -> object:
    """Of an endpoint: address, clusters, stable version, rollout and what was rejected."""
    ledger, owner = scene.serving, scene.endpoint
    services = scene.team.items(RAY_SERVICE, {OWNER_UID_LABEL: uid_of(owner)})
    return (
        text(owner, "status", "url"),
        uid_of(scene.team.get(SERVICE, scene.project) or {}),
        sorted((name_of(each), uid_of(each)) for each in services),
        (ledger.revision, ledger.stable, ledger.candidate, ledger.rejected),
    )


def what_is_trained(scene: Scene) -> object:
    """Of a run: itself, and how often it had to begin again."""
    return uid_of(scene.training), scene.attempts.attempt, scene.attempts.incarnation


def which_attempt(scene: Scene) -> object:
    """Of a run whose cluster may be another: itself, and that no attempt is used up."""
    return uid_of(scene.training), max(scene.attempts.attempt, 1)


def which_run(scene: Scene) -> object:
    """Of a run that may begin again: itself and its data."""
    return uid_of(scene.training), scene.attempts.data_version


def nothing(scene: Scene) -> object:
    """Of what is meant to go."""
    return None


# The operator.


def kill_leader(scene: Scene) -> str:
    """Takes the leading Pod away at once, and with it the project's stage, which only another leader writes again."""
    leads = leader(scene)
    scene.system("delete", "pod", leads, "--grace-period=0", "--force", "--wait=false")
    wiped = json.dumps({"status": {"stage": None}})
    scene.team("patch", "dtp", scene.project, "--subresource=status", "--type=merge", "-p", wiped)
    return leads


def leader(scene: Scene) -> str:
    """The Pod that holds the Lease."""
    holder = text(scene.system.get(LEASE, LEASE_NAME) or {}, "spec", "holderIdentity")
    return holder.rpartition("-")[0]


def is_led_again(scene: Scene, killed: str) -> bool:
    project = scene.team.get(DRIVETRAIN_PROJECT, scene.project) or {}
    return leader(scene) not in ("", killed) and bool(text(project, "status", "stage")) and is_up(scene, RELEASE)


# Ray heads.


def kill_head(scene: Scene, owner: Document) -> str:
    """Kills the Pod of the Ray head that belongs to a run or a Deployment; returns its uid."""
    selected = f"ray.io/node-type=head,{OWNER_UID_LABEL}={uid_of(owner)}"
    found = json.loads(scene.team("get", "pods", "-l", selected, "-o", "json"))
    (head,) = [pod for pod in documents(found, "items") if not text(pod, "metadata", "deletionTimestamp")]
    scene.team("delete", "pod", name_of(head), "--grace-period=1", "--wait=false")
    return uid_of(head)


def is_headless(scene: Scene, head: str) -> bool:
    return scene.says(scene.endpoint, "Degraded", "HeadDown")


def is_back(scene: Scene, killed: str) -> bool:
    """The endpoint serves from another head and from replicas that this one has started.

    The old replicas answer from memory for half a minute, until Ray ends them because it does not know them any more.
    """
    owner = scene.endpoint
    pods = scene.team.items(POD, {OWNER_UID_LABEL: uid_of(owner)})
    heads = [pod for pod in pods if labels_of(pod).get("ray.io/node-type") == "head"]
    if any(uid_of(head) == killed for head in heads) or not heads:
        return False
    since = text(heads[0], "metadata", "creationTimestamp")
    (service,) = scene.team.items(RAY_SERVICE, {OWNER_UID_LABEL: uid_of(owner)})
    applications = mapping(service, "status", "activeServiceStatus", "applicationStatuses")
    runs = [text(mapping(applications, name), "status") for name in applications]
    return serves(scene) and all(started(pod) >= since for pod in pods) and runs == ["RUNNING"]


def started(pod: Document) -> str:
    """When the Pod's container was started last; empty while it does not run. Times in RFC 3339 sort as text."""
    return next(
        (text(each, "state", "running", "startedAt") for each in documents(pod, "status", "containerStatuses")), ""
    )


def begins_again(scene: Scene, head: str) -> bool:
    """The run is in its next attempt or on the way there, and says what became of the last."""
    ledger = scene.attempts
    assert ledger.attempt > 1 or not ledger.finished, "the run was over before it could be disturbed"
    return bool(ledger.failures) and ("Restarting" in reasons(scene.training) or ledger.attempt > 1)


def is_trained(scene: Scene, hit: str) -> bool:
    return condition(scene.training, "Complete").get("status") == "True"


# What a release brings along.


def scaled(name: str, count: int) -> Callable[[Scene], str]:
    """Gives one of the release's Deployments this many Pods."""

    def scale(scene: Scene) -> str:
        scene.system("scale", f"deployment/{name}", f"--replicas={count}")
        return name

    return scale


def pods_of(scene: Scene, name: str) -> int:
    """How many Pods a Deployment of the release has, those that are leaving included."""
    component = labels_of(scene.system.get(DEPLOYMENTS, name) or {}).get("app.kubernetes.io/component", "")
    return len(scene.system.items(POD, {"app.kubernetes.io/component": component}))


def is_without_pods(scene: Scene, name: str) -> bool:
    return pods_of(scene, name) == 0


def is_up(scene: Scene, name: str) -> bool:
    found = scene.system.get(DEPLOYMENTS, name) or {}
    return integer(found, "status", "availableReplicas") == integer(found, "spec", "replicas") > 0


def brought_back(name: str) -> Callable[[Scene, str], None]:
    def bring(scene: Scene, hit: str) -> None:
        scaled(name, 1)(scene)
        until(lambda: is_up(scene, name), 240, f"{name} is up again")

    return bring


# GPUs.


def hold(scene: Scene) -> str:
    scene.team.patch(CLUSTER_QUEUE, scene.pool, {"spec": {"stopPolicy": "HoldAndDrain"}})
    return scene.pool


def release(scene: Scene, pool: str) -> None:
    scene.team.patch(CLUSTER_QUEUE, pool, {"spec": {"stopPolicy": "None"}})


def is_held(scene: Scene, pool: str) -> bool:
    """Nothing of the run is left on any node, and it says for whom it waits."""
    found = scene.training
    told = text(found, "status", "why")
    waits = condition(found, "QuotaReserved").get("status") == "False" and "stopped" in told.lower()
    return waits and not scene.team.items(POD, {OWNER_UID_LABEL: uid_of(found)})


def runs_again(scene: Scene, hit: str) -> bool:
    return "Running" in reasons(scene.training)


def take_gpus(scene: Scene) -> str:
    """Leaves no node any GPU; returns what each had."""
    had = {name_of(node): gpus for node in scene.team.items(NODE) if (gpus := capacity(node)) not in ("", "0")}
    assert had, "no node has GPUs"
    for node in had:
        set_gpus(scene, node, "0")
    return json.dumps(had)


def give_gpus(scene: Scene, had: str) -> None:
    gpus: Mapping[str, str] = json.loads(had)
    for node, count in gpus.items():
        set_gpus(scene, node, count)
    wanted = set(gpus.items())
    until(lambda: wanted <= {(name_of(each), allocatable(each)) for each in scene.team.items(NODE)}, 60, "GPUs again")


def set_gpus(scene: Scene, node: str, count: str) -> None:
    """As whatever advertises them: the kubelet derives what can be had from the capacity."""
    change = [
        {"op": "add", "path": f"/status/{part}/nvidia.com~1gpu", "value": count} for part in ("capacity", "allocatable")
    ]
    scene.team("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(change))


def capacity(node: Document) -> str:
    return texts(node, "status", "capacity").get(GPU, "")


def allocatable(node: Document) -> str:
    return texts(node, "status", "allocatable").get(GPU, "")


def lacks_gpus(scene: Scene, had: str) -> bool:
    """The run has its quota, and says that no node has what it was promised."""
    found = scene.training
    reserved = condition(found, "QuotaReserved").get("status") == "True"
    assert all(allocatable(each) in ("", "0") for each in scene.team.items(NODE)), "the node has GPUs again"
    return reserved and f"Insufficient {GPU}" in text(found, "status", "why")


# The namespace.


def delete_namespace(scene: Scene) -> str:
    scene.system("delete", "namespace", scene.team.namespace, "--wait=false")
    return scene.team.namespace


def is_leaving(scene: Scene, namespace: str) -> bool:
    found = scene.system.get(NAMESPACE, namespace)
    return found is None or text(found, "status", "phase") == "Terminating"


def is_gone(scene: Scene, namespace: str) -> bool:
    return scene.system.get(NAMESPACE, namespace) is None


def reasons(owner: Document) -> set[str]:
    """Of all conditions that hold."""
    found = documents(owner, "status", "conditions")
    return {text(each, "reason") for each in found if text(each, "type") in ("Reconciling", "Stalled")}


def serves(scene: Scene) -> bool:
    """Whether the endpoint is ready and nothing degrades it."""
    found = scene.endpoint
    return condition(found, "Ready").get("status") == "True" and not condition(found, "Degraded")


def rolls_out(scene: Scene) -> bool:
    """Whether a candidate is at a step of its rollout, and the endpoint serves."""
    candidate = scene.serving.candidate
    return candidate is not None and candidate.phase == "Weighted" and serves(scene)


OPERATOR_KILLED = Fault(
    "the leading operator is killed",
    begin=kill_leader,
    shown=lambda scene, killed: leader(scene) != killed,
    over=is_led_again,
    kept=lambda scene: what_is_trained(scene) if scene.run else what_serves(scene),
)
HEAD_KILLED_IN_TRAINING = Fault(
    "the Ray head of a run is killed",
    begin=lambda scene: kill_head(scene, scene.training),
    shown=begins_again,
    over=is_trained,
    kept=which_run,
    shown_within=300,
)
HEAD_KILLED_IN_SERVING = Fault(
    "the Ray head of an endpoint is killed",
    begin=lambda scene: kill_head(scene, scene.endpoint),
    shown=is_headless,
    over=is_back,
    kept=what_serves,
)
MLFLOW_AWAY = Fault(
    "MLflow is away for a minute",
    begin=scaled(f"{RELEASE}-mlflow", 0),
    shown=is_without_pods,
    end=brought_back(f"{RELEASE}-mlflow"),
    over=is_up,
    kept=lambda scene: what_is_trained(scene) if scene.run else what_serves(scene),
    lasts=A_MINUTE,
)
STORE_AWAY_FROM_ENDPOINT = Fault(
    "S3 is away from an endpoint for a minute",
    begin=scaled(f"{RELEASE}-s3", 0),
    shown=lambda scene, name: scene.says(scene.endpoint, "Degraded", "StoreUnavailable", "did not answer"),
    end=brought_back(f"{RELEASE}-s3"),
    over=lambda scene, name: serves(scene),
    kept=what_serves,
    lasts=A_MINUTE,
)
STORE_AWAY_FROM_RUN = Fault(
    "S3 is away from a run for a minute",
    begin=scaled(f"{RELEASE}-s3", 0),
    shown=lambda scene, name: begins_again(scene, name) and "StoreUnavailable" in " ".join(scene.attempts.failures),
    end=brought_back(f"{RELEASE}-s3"),
    over=is_trained,
    kept=which_run,
    lasts=A_MINUTE,
)
GPUS_TAKEN_AWAY = Fault(
    "the pool of GPUs is stopped and drained",
    begin=hold,
    shown=is_held,
    end=release,
    over=runs_again,
    kept=which_attempt,
)
NODES_WITHOUT_GPUS = Fault(
    "no node has a GPU any more",
    begin=take_gpus,
    shown=lacks_gpus,
    end=give_gpus,
    over=runs_again,
    kept=which_attempt,
)
NAMESPACE_DELETED = Fault(
    "the namespace is deleted",
    begin=delete_namespace,
    shown=is_leaving,
    over=is_gone,
    kept=nothing,
    over_within=GONE_SECONDS,
)

OF_AN_ENDPOINT = (OPERATOR_KILLED, HEAD_KILLED_IN_SERVING, MLFLOW_AWAY, STORE_AWAY_FROM_ENDPOINT)
"""What a served project bears at any time."""
OF_A_RUN = (OPERATOR_KILLED, HEAD_KILLED_IN_TRAINING, MLFLOW_AWAY, STORE_AWAY_FROM_RUN)
"""What a run bears while it is under way."""
