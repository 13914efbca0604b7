"""The embedded mode from `up` to `down`: a RayJob, a RayService, crashes, and nothing left behind."""

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from drivetrain.api.documents import JSON, Document, annotations_of, documents, mapping, name_of, text, value
from drivetrain.api.kinds import CONFIG_MAP, POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, SECRET
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION
from drivetrain.local.environment import status, up
from drivetrain.local.processes import of_environment
from tests.embedded.conftest import WITHOUT, Embedded, until

pytestmark = pytest.mark.embedded

HERE = Path(__file__).parent
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
PROOF = (
    "import os, pathlib, urllib.request as r, ssl; p = pathlib.Path(os.environ['SA']); "
    "a = 'https://' + os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT']; "
    "q = r.Request(a + '/apis', headers={'Authorization': 'Bearer ' + (p / 'token').read_text()}); "
    "r.urlopen(q, context=ssl.create_default_context(cafile=str(p / 'ca.crt'))); "
    "print(open('/etc/word/word').read(), os.environ['RAY_CLUSTER_NAME'], os.environ['KEY'])"
)


def a_template(*env: JSON, volumes: dict[str, Document] | None = None) -> Document:
    """A head's pod template; `volumes` are given by mount path."""
    wanted = volumes or {}
    names = {path: f"v{index}" for index, path in enumerate(wanted)}
    return {
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "ray-head",
                    "image": "local",
                    "env": list(env),
                    "volumeMounts": [{"name": name, "mountPath": path} for path, name in names.items()],
                }
            ],
            "volumes": [{"name": name, **wanted[path]} for path, name in names.items()],
        }
    }


def a_cluster(template: Document) -> Document:
    return {
        "rayVersion": "2.60.0",
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": template},
    }


def a_ray_job(name: str, entrypoint: str, template: Document) -> Document:
    return {
        "apiVersion": RAY_JOB.api_version,
        "kind": RAY_JOB.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "entrypoint": entrypoint,
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": a_cluster(template),
        },
    }


def a_config_map(name: str, **data: str) -> Document:
    metadata: Document = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def job_status(embedded: Embedded, name: str) -> Document:
    return mapping(embedded.get(RAY_JOB, name) or {}, "status")


def log_of(embedded: Embedded, submission: str) -> str:
    """What a Ray job printed, through Ray's own API."""
    url = f"{embedded.addresses.ray_dashboard}/api/jobs/{submission}/logs"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {embedded.addresses.ray_token}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        found: str = json.load(response)["logs"]
    return found


def test_a_rayjob_runs_with_its_volumes_secrets_and_token(embedded: Embedded) -> None:
    embedded.apply(a_config_map("word", word="hello"))
    projected: Document = {
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ]
        }
    }
    template = a_template(
        {"name": "SA", "value": TOKEN_FOLDER},
        {
            "name": "KEY",
            "valueFrom": {"secretKeyRef": {"name": embedded.addresses.s3_secret, "key": "AWS_ACCESS_KEY_ID"}},
        },
        volumes={TOKEN_FOLDER: projected, "/etc/word": {"configMap": {"name": "word"}}},
    )
    embedded.apply(a_ray_job("proof", f'python -c "{PROOF}"', template))
    until(
        lambda: job_status(embedded, "proof").get("jobDeploymentStatus") in ("Complete", "Failed"), 120, "the job ends"
    )
    done = job_status(embedded, "proof")
    printed = log_of(embedded, text(done, "jobId"))
    assert done["jobStatus"] == "SUCCEEDED", printed
    assert f"hello {done['rayClusterName']} {embedded.addresses.s3_access_key}" in printed
    secret = embedded.get(SECRET, text(done, "rayClusterName"))
    assert secret is not None, "the token Secret that KubeRay makes"


def test_a_job_without_its_secret_waits_and_starts_when_it_comes(embedded: Embedded) -> None:
    template = a_template({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "word"}}})
    embedded.apply(a_ray_job("waits", "python -c \"import os; print('got', os.environ['KEY'])\"", template))

    def waiting() -> Document:
        pods = [pod for pod in embedded.items(POD) if name_of(pod).startswith("waits-")]
        states = [
            mapping(entry, "state", "waiting")
            for pod in pods
            for entry in documents(pod, "status", "containerStatuses")
        ]
        return states[0] if states else {}

    assert until(waiting, 60, "the pod waits") == {
        "reason": "CreateContainerConfigError",
        "message": 'secret "late" not found',
    }
    late: Document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "late", "namespace": "default"},
        "stringData": {"word": "it"},
    }
    embedded.apply(late)
    until(lambda: job_status(embedded, "waits").get("jobStatus") == "SUCCEEDED", 120, "the job ends")


def test_a_deleted_job_is_stopped_and_leaves_nothing(embedded: Embedded, tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = f"python -c \"import pathlib, time; pathlib.Path('{started}').touch(); time.sleep(600)\""
    embedded.apply(a_ray_job("long", command, a_template()))
    until(started.exists, 120, "the entrypoint runs")
    embedded.delete(RAY_JOB, "long")

    def left() -> list[str]:
        objects = [*embedded.items(RAY_CLUSTER), *embedded.items(POD)]
        return [name_of(found) for found in objects if name_of(found).startswith("long-")]

    until(lambda: not left(), 120, "its cluster and pods are gone")
    assert not [
        process for process in of_environment(embedded.state.root) if str(started) in " ".join(process.cmdline())
    ]


def test_a_rayservice_answers_changes_in_place_and_goes(embedded: Embedded) -> None:
    def service(word: str) -> Document:
        config = {
            "applications": [
                {
                    "name": "endpoint",
                    "route_prefix": "/",
                    "import_path": "hello_endpoint:app",
                    "deployments": [
                        {"name": "Hello", "user_config": {"word": word}, "ray_actor_options": {"num_gpus": 1}}
                    ],
                }
            ]
        }
        return {
            "apiVersion": RAY_SERVICE.api_version,
            "kind": RAY_SERVICE.kind,
            "metadata": {"name": "greeter", "namespace": "default"},
            "spec": {
                "upgradeStrategy": {"type": "None"},
                "serveConfigV2": json.dumps(config),
                "rayClusterConfig": a_cluster(a_template({"name": "PYTHONPATH", "value": str(HERE)})),
            },
        }

    embedded.apply(service("good day"))
    until(
        lambda: value(embedded.get(RAY_SERVICE, "greeter") or {}, "status", "numServeEndpoints") == 1, 180, "it serves"
    )
    stored = embedded.get(RAY_SERVICE, "greeter")
    assert stored is not None
    url = annotations_of(stored)[ENDPOINT_URL_ANNOTATION]
    cluster = text(stored, "status", "activeServiceStatus", "rayClusterName")

    def answer() -> dict[str, str]:
        with urllib.request.urlopen(f"{url}/ask", timeout=10) as response:
            found: dict[str, str] = json.load(response)
        return found

    assert answer() == {"word": "good day", "cluster": cluster, "path": "/default/greeter/ask"}
    embedded.apply(service("good night"))
    until(lambda: answer()["word"] == "good night", 60, "the change is served")
    assert answer()["cluster"] == cluster
    embedded.delete(RAY_SERVICE, "greeter")
    until(lambda: cluster not in [name_of(found) for found in embedded.items(RAY_CLUSTER)], 60, "its cluster goes")
    until(
        lambda: not [pod for pod in embedded.items(POD) if name_of(pod).startswith(cluster)], 120, "its pods are gone"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        answer()
    assert refused.value.code == 404


def test_a_second_up_changes_nothing(embedded: Embedded) -> None:
    before = {component.name: component.pid for component in status(embedded.state)}
    assert up(embedded.state, lambda component, text: None, without=WITHOUT) == embedded.addresses
    assert {component.name: component.pid for component in status(embedded.state)} == before


def test_what_crashes_is_named_and_started_again(embedded: Embedded) -> None:
    """The API server and the agent at once; a job submitted meanwhile still runs."""
    before = {component.name: component for component in status(embedded.state)}
    killed = ("kube-apiserver", "agent")
    for name in killed:
        pid = before[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def recovered() -> bool:
        found = status(embedded.state)
        again = [each for each in found if each.name in killed and each.restarts == before[each.name].restarts + 1]
        return len(again) == 2 and all(component.phase == "Ready" for component in found)

    until(recovered, 180, "everything is ready again")
    messages = {component.name: component.message for component in status(embedded.state)}
    assert messages["agent"] == "it ended (exit status -9)"
    embedded.apply(a_ray_job("after", 'python -c "print(1)"', a_template()))
    until(lambda: job_status(embedded, "after").get("jobStatus") == "SUCCEEDED", 120, "a job runs")


def test_settled_objects_are_not_written_again(embedded: Embedded) -> None:
    def versions() -> dict[str, str]:
        kinds = (RAY_JOB, RAY_CLUSTER, POD, CONFIG_MAP)
        return {
            f"{kind.kind}/{name_of(found)}": text(found, "metadata", "resourceVersion")
            for kind in kinds
            for found in embedded.items(kind)
        }

    agent = next(component for component in status(embedded.state) if component.name == "agent")
    before = versions()
    beats = embedded.state.heartbeat.stat().st_mtime
    until(lambda: embedded.state.heartbeat.stat().st_mtime >= beats + 3, 30, "some passes of the agent")
    assert versions() == before
    assert agent.pid is not None
    assert psutil.Process(agent.pid).is_running()
