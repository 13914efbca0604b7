"""Two teams on one cluster, one S3 server and one MLflow: what the code of one can do to the other, and what is told.

Team A's run fails, team B trains and serves. A's own code is a Pod with the account of A's run and A's S3 key.
"""

import base64
import hashlib
import io
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from drivetrain.api.documents import Document, documents, name_of, namespace_of, text, texts, uid_of
from drivetrain.api.kinds import CONFIG_MAP, DRIVETRAIN_PROJECT, POD, TRAINING_RUN
from drivetrain.api.layout import model as model_key
from drivetrain.api.names import OWNER_UID_LABEL, RETRAIN_ANNOTATION, account_name, ledger_name, report_name
from tests.cluster import clusters, release
from tests.cluster.clusters import condition
from tests.cluster.faults import Scene, rolls_out, serves
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, KubectlError, delete_namespaces, tell, until
from tests.cluster.outside import Caller, Store
from tests.cluster.teams import SMALL, Team, enabled
from tests.cluster.tracking import Mlflow

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

A, B = "tenant-a", "tenant-b"
RUN, SECOND = "renewals-1", "renewals-2"
TRAINED = 600
DENIED, FORBIDDEN, OK = "AccessDenied", "403", ("OK", "200")
SHORTEST = 8
"""A shorter value of a Secret is no secret, and is found anywhere."""


class Logs:
    """Follows every container of some namespaces from its start, because Pods take their logs with them."""

    def __init__(self, cluster: Kubectl, namespaces: tuple[str, ...], folder: Path) -> None:
        self._cluster, self._namespaces, self._folder = cluster, namespaces, folder
        self._followers: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Logs":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        for follower in self._followers.values():
            follower.terminate()
        for follower in self._followers.values():
            follower.wait()

    def read(self) -> dict[str, bytes]:
        """What each container has written so far."""
        return {f"log of {path.name}": path.read_bytes() for path in self._folder.iterdir()}

    def _run(self) -> None:
        while not self._stop.wait(2):
            for namespace in self._namespaces:
                with suppress(KubectlError):  # the next look sees what this one could not
                    found = json.loads(self._cluster.within(namespace)("get", "pods", "-o", "json"))
                    for pod in documents(found, "items"):
                        self._follow(pod)

    def _follow(self, pod: Document) -> None:
        for status in documents(pod, "status", "containerStatuses"):
            container, restarts = text(status, "name"), str(status.get("restartCount", 0))
            name = "_".join((namespace_of(pod), name_of(pod), container, restarts))
            state = status.get("state")
            if name in self._followers or not isinstance(state, Mapping) or "waiting" in state:
                continue
            command = ["kubectl", "-n", namespace_of(pod), "logs", "-f", name_of(pod), "-c", container]
            with (self._folder / name).open("wb") as file:
                self._followers[name] = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)


@dataclass(frozen=True, slots=True)
class Tenants:
    """Both teams, once B serves and A's run has failed."""

    system: Kubectl
    a: Team
    b: Team
    image: str
    logs: Logs

    @property
    def serving(self) -> Scene:
        """B's project."""
        return Scene(self.b.kubectl, self.system, "renewals", RUN)


@pytest.fixture(scope="module")
def tenants(cluster: Kubectl, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """A release, team A with a run that failed, and team B with a version in its rollout."""
    followed = (A, B, release.NAMESPACE, "kuberay-system", "kueue-system")
    for name in (A, B):
        cluster.apply(enabled(name))
    with ExitStack() as stack:
        system = stack.enter_context(release.installed(cluster, images))
        stack.enter_context(gone_afterwards(cluster, A, B))
        logs = stack.enter_context(Logs(cluster, followed, tmp_path_factory.mktemp("logs")))
        a, b = Team(cluster.within(A)), Team(cluster.within(B))
        for team in (b, a):
            team.prepare()
            project = team.project()
            del project["spec"]["training"]["queue"]
            project["spec"]["training"] |= {"cluster": SMALL}
            if team is a:
                del project["spec"]["serving"]
                project["spec"]["data"]["sources"][0]["uri"] = f"s3://{A}/sources/nothing.csv"
            team.kubectl.apply(project)
        found = Tenants(system, a, b, images.ray, logs)
        until(lambda: condition(run_of(a), "Failed"), TRAINED, "A's run fails")
        assert condition(run_of(a), "Stalled")["reason"] == "SourceNotFound"
        until(lambda: rolls_out(found.serving), TRAINED, "B's version is in its rollout")
        yield found


@contextmanager
def gone_afterwards(cluster: Kubectl, *names: str) -> Iterator[None]:
    try:
        yield
    finally:
        delete_namespaces(cluster, names)


@pytest.fixture(autouse=True)
def told_on_failure(tenants: Tenants, request: pytest.FixtureRequest) -> Iterator[None]:
    """What a person would look at first, when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        tell(tenants.system, everywhere=True)


def run_of(team: Team, name: str = RUN) -> Document:
    return team.kubectl.get(TRAINING_RUN, name) or {}


def digest_of(tenants: Tenants) -> str:
    """Of the model that B's first run registered."""
    version = tenants.serving.attempts.version
    assert version is not None
    return version.digest


def what_b_has(tenants: Tenants) -> tuple[object, ...]:
    """B's model, what its run reported, what its endpoint serves, and what is said of both."""
    team, scene = tenants.b.kubectl, tenants.serving
    with Store.of(tenants.b, "renewals") as store:
        keys = store.below(model_key(digest_of(tenants)))
        model = {key: hashlib.sha256(store.get(key)).hexdigest() for key in keys}
    report = team.get(CONFIG_MAP, report_name(TRAINING_RUN.kind, RUN)) or {}
    ledger = team.get(CONFIG_MAP, ledger_name(TRAINING_RUN.kind, RUN)) or {}
    serving = scene.serving
    run = run_of(tenants.b)
    assert model
    return (
        (model, texts(report, "data"), texts(ledger, "data"), run.get("status")),
        (serving.stable, serving.candidate, serving.policies, serving.rejected),
        (tenants.b.kubectl.get(DRIVETRAIN_PROJECT, "renewals") or {}).get("spec"),
    )


def test_a_teams_code_can_change_nothing_of_another_team(tenants: Tenants) -> None:
    before = what_b_has(tenants)
    answers = intrusion(tenants)
    allowed = {name: answer for name, answer in answers.items() if answer in OK}
    assert set(allowed) == {"its own bucket: write", "its own report: read"}
    denied = {answer for name, answer in answers.items() if name not in allowed}
    assert denied == {DENIED, FORBIDDEN}, answers
    assert len(answers) > 20
    assert what_b_has(tenants) == before
    with Caller.of(tenants.b, "renewals") as calls:
        calls.decide(5)
        calls.report()
    assert calls.asked == [200]
    assert not calls.refusals


def intrusion(tenants: Tenants) -> dict[str, str]:
    """Runs A's own code with the account and the key of A's run; what each of its tries was answered with."""
    model = f"renewals/{model_key(digest_of(tenants))}/model.onnx"
    store = f"http://{release.NAME}-s3.{release.NAMESPACE}.svc:7070"
    pod = clusters.template(
        tenants.image,
        "intruder",
        variables={"OWN": A, "OTHER": B, "MODEL": model, "STORE": store},
        account=account_name(TRAINING_RUN.kind, RUN),
        restart_policy="Never",
    )
    (container,) = pod["spec"]["containers"]
    container |= {"envFrom": [{"secretRef": {"name": "s3"}}], "command": ["python", f"{clusters.PROGRAM}/intruder.py"]}
    container["resources"]["requests"]["cpu"] = "50m"
    team = tenants.a.kubectl
    team.apply(
        clusters.program("intruder"), {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {"name": "intruder"}}
    )

    def ended() -> bool:
        phase = text(team.get(POD, "intruder") or {}, "status", "phase")
        assert phase != "Failed", team.logs("intruder")
        return phase == "Succeeded"

    until(ended, 120, "A's code has tried everything")
    found: dict[str, str] = json.loads(team.logs("intruder").splitlines()[-1])
    team.delete(POD, "intruder")
    return found


def test_what_a_team_changes_in_a_shared_mlflow_changes_nothing_that_another_serves(tenants: Tenants) -> None:
    before = what_b_has(tenants)
    name = f"{B}.renewals"
    with Mlflow.of(tenants.system) as mlflow:
        own = mlflow.version(name, "approved")
        false = mlflow.registered(name, source=f"s3://{A}/another")
        mlflow.post("registered-models/alias", name=name, alias="approved", version=false)
        mlflow.post("model-versions/set-tag", name=name, version=own, key="drivetrain.digest", value="0")
        mlflow.post("model-versions/set-tag", name=name, version=own, key="drivetrain.gates", value="[]")
        assert mlflow.version(name, "approved") == false, "this MLflow asks nobody who they are"
        assert what_b_has(tenants) == before

        tenants.b.kubectl("annotate", "dtp", "renewals", f"{RETRAIN_ANNOTATION}=after-the-lies")
        until(lambda: condition(run_of(tenants.b, SECOND), "Complete"), TRAINED, "B trains again")
        second = run_of(tenants.b, SECOND)
        assert condition(second, "Ready")["reason"] == "Succeeded", second["status"]
        assert mlflow.version(name, "approved") == text(second, "status", "modelVersion") != false
    assert serves(tenants.serving)
    assert what_b_has(tenants)[0] == before[0]
    with Caller.of(tenants.b, "renewals") as calls:
        calls.decide(5)
    assert calls.asked == [200]


def test_no_value_of_a_secret_is_told_anywhere(tenants: Tenants) -> None:
    with Caller.of(tenants.b, "renewals") as calls:
        calls.decide(20)
        calls.report()
    assert len(calls.reported) == 20
    secrets = {
        name: value
        for namespace in (A, B, release.NAMESPACE)
        for name, value in planted(tenants.system.within(namespace)).items()
    }
    for name in (A, B):
        assert {f"{name}/s3/AWS_SECRET_ACCESS_KEY", f"{name}/renewals-keys/decide"} <= set(secrets)
    found: dict[str, bytes] = dict(tenants.logs.read())
    heard = b"".join(found.values())
    assert b"nothing.csv" in heard, "the failing run's log is there"
    assert b"Deployment done" in heard, "the trained run's log is there"
    for namespace in (A, B, release.NAMESPACE):
        found |= everything_but_secrets(tenants.system.within(namespace))
    with Mlflow.of(tenants.system) as mlflow:
        found |= mlflow.everything()
    assert len(json.loads(found["MLflow's runs"])["runs"]) >= 2, "both teams' runs are recorded"
    for team in (tenants.a, tenants.b):
        with Store.of(team, "renewals") as store:
            found |= {f"{team.name}: {key}": readable(key, store.get(key)) for key in store.below()}
    assert sum("/dossier/" in name for name in found) >= 2
    assert sum("/log/outcomes/" in name for name in found) >= 1
    leaks = [
        f"{secret} in {place}"
        for place, content in found.items()
        for secret, value in secrets.items()
        for form in (value.encode(), base64.b64encode(value.encode()).rstrip(b"="))
        if form in content
    ]
    assert not leaks
    assert not in_files(tenants, secrets)


def planted(kubectl: Kubectl) -> dict[str, str]:
    """The values of all Secrets of a namespace that are worth keeping; names of accounts are none."""
    listed = json.loads(kubectl("get", "secrets", "-o", "json"))
    found = {}
    for secret in documents(listed, "items"):
        if text(secret, "type").startswith("helm.sh/"):
            continue  # the whole release, which is none of its own Secrets' values
        for key, value in texts(secret, "data").items():
            content = base64.b64decode(value).decode(errors="ignore")
            if key != "AWS_ACCESS_KEY_ID" and len(content) >= SHORTEST:
                found[f"{kubectl.namespace}/{name_of(secret)}/{key}"] = content
    return found


def everything_but_secrets(kubectl: Kubectl) -> dict[str, bytes]:
    """All objects of a namespace, events and statuses among them."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    asked = [each for each in kinds if each != "secrets" and ".visibility." not in each]
    listed = json.loads(kubectl("get", ",".join(asked), "-o", "json"))
    found = documents(listed, "items")
    assert {"ConfigMap", "Event", "Pod"} <= {text(each, "kind") for each in found}
    return {f"{text(each, 'kind')} {kubectl.namespace}/{name_of(each)}": json.dumps(each).encode() for each in found}


def readable(key: str, content: bytes) -> bytes:
    """An object's content, unpacked where it is a table."""
    if not key.endswith(".parquet"):
        return content
    return json.dumps(pq.read_table(io.BytesIO(content)).to_pylist(), default=str).encode()


def in_files(tenants: Tenants, secrets: Mapping[str, str]) -> list[str]:
    """Where values lie in the files that B's endpoint writes: Ray's logs, the journal, scratch space."""
    program = (clusters.PROGRAMS / "searcher.py").read_text()
    team, owner = tenants.b.kubectl, uid_of(tenants.serving.endpoint)
    found = []
    for node in ("head", "worker"):
        for pod in team.items(POD, {OWNER_UID_LABEL: owner, "ray.io/node-type": node}):
            command = ("exec", "-i", name_of(pod), "--", "python", "-c", program, "/tmp", "/var/lib/drivetrain")
            told = json.loads(team(*command, content=json.dumps(secrets)))
            assert told["files"] > 20, "Ray's logs were read"
            found += [f"{name_of(pod)}: {each}" for each in told["found"]]
    return found
