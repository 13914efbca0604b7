"""Pods of this machine: the kubelet's words, volumes, and what keeps a pod from going."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from drivetrain.api.documents import JSON, Document, documents, mapping, text, uid_of
from drivetrain.api.kinds import POD, Ref
from drivetrain.local.agent.containers import (
    ContainerError,
    MountError,
    mounts,
    relocated,
    relocated_command,
    resolve,
)
from drivetrain.local.agent.effects import Effect, RemovePod, SetStatus, Stop, Tell
from drivetrain.local.agent.facts import RayFacts, World
from drivetrain.local.agent.pods import decide, mounted
from drivetrain.local.agent.volumes import drop, put, volumes
from tests.unit.local.worlds import (
    STARTED,
    a_running_job,
    a_service,
    a_template,
    a_world,
    an_object,
    its_cluster,
    its_head,
    ray_with,
    without_ray,
)


def a_pod(**template: JSON) -> Document:
    job = a_running_job(rayClusterSpec={"headGroupSpec": {"template": a_template(**template)}})
    return its_head(its_cluster(job, "train-abcde"), up=False)


def a_secret(name: str, **data: str) -> Document:
    encoded = {key: base64.b64encode(entry.encode()).decode() for key, entry in data.items()}
    return an_object("v1", "Secret", name, data=encoded)


def a_config_map(name: str, **data: str) -> Document:
    return an_object("v1", "ConfigMap", name, data=dict(data))


def from_secret(key: str, **extra: JSON) -> list[JSON]:
    return [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": key, **extra}}}]


def told(pod: Document, world: World) -> tuple[Effect, ...]:
    return decide(pod, world, mounted(pod, world))


def waiting(effects: tuple[Effect, ...]) -> Document:
    (status,) = [effect.status for effect in effects if isinstance(effect, SetStatus)]
    (container,) = documents(status, "containerStatuses")
    return mapping(container, "state", "waiting")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ((), 'secret "s3" not found'),
        ((a_secret("s3", other="x"),), "couldn't find key access in Secret team/s3"),
    ],
    ids=["the secret is missing", "the key is missing"],
)
def test_a_container_without_its_secret_says_so_as_the_kubelet_does(
    objects: tuple[Document, ...], message: str
) -> None:
    pod = a_pod(env=from_secret("access"))
    effects = told(pod, a_world(pod, *objects))
    assert Tell(pod, "Warning", "Failed", f"Error: {message}") in effects
    # the builder's pod waits already, so only what changes is written
    assert waiting(effects) == {"reason": "CreateContainerConfigError", "message": message}


def test_an_optional_secret_may_be_missing() -> None:
    pod = a_pod(env=from_secret("access", optional=True))
    assert "KEY" not in resolve(pod, a_world(pod))


def test_a_volume_without_its_config_map_is_an_event_and_the_container_is_being_created() -> None:
    pod = a_pod(volumes=[{"name": "spec", "configMap": {"name": "train-spec"}}])
    (event, status) = told(pod, a_world(pod))
    assert event == Tell(
        pod, "Warning", "FailedMount", 'MountVolume.SetUp failed for volume "spec" : configmap "train-spec" not found'
    )
    assert isinstance(status, SetStatus)
    said = {text(each, "type"): text(each, "status") for each in documents(status.status, "conditions")}
    assert said["PodReadyToStartContainers"] == "False"


def test_a_pod_is_ready_when_everything_is_there() -> None:
    pod = a_pod(env=from_secret("access"))
    (effect,) = told(pod, a_world(pod, a_secret("s3", access="abc")))
    assert isinstance(effect, SetStatus)
    assert effect.status["phase"] == "Running"
    assert {text(entry, "status") for entry in documents(effect.status, "conditions")} == {"True"}


def test_a_pod_waits_for_ray() -> None:
    pod = a_pod()
    assert told(pod, without_ray(a_world(pod))) == ()


def test_a_container_that_runs_keeps_running_when_its_secret_goes_or_ray_is_silent() -> None:
    pod = a_pod(env=from_secret("access"))
    running = its_head(its_cluster(a_running_job(), "train-abcde"))
    world = a_world(running, environments={uid_of(running): {"KEY": "abc"}})
    assert told(running, world) == ()
    assert told(running, without_ray(world)) == ()
    assert uid_of(pod) == uid_of(running)


def test_variables_come_from_values_secrets_config_maps_and_the_pod_itself() -> None:
    pod = a_pod(
        envFrom=[{"prefix": "S_", "configMapRef": {"name": "settings"}}],
        env=[
            {"name": "PLAIN", "value": "$(S_color)-$$(S_color)-$(UNKNOWN)"},
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "CLUSTER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}}},
            *from_secret("access"),
        ],
    )
    found = resolve(pod, a_world(pod, a_secret("s3", access="abc"), a_config_map("settings", color="red")))
    assert found["S_color"] == "red"
    assert found["PLAIN"] == "red-$(S_color)-$(UNKNOWN)"
    assert (found["NAMESPACE"], found["CLUSTER"], found["KEY"]) == ("team", "train-abcde", "abc")


def test_what_the_shared_ray_instance_decides_is_not_taken_from_a_template() -> None:
    env: list[JSON] = [
        {"name": name, "value": "x"} for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_ADDRESS", "RAY_DEDUP_LOGS")
    ]
    found = resolve(a_pod(env=env), a_world())
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in found
    assert "RAY_ADDRESS" not in found
    assert found["RAY_DEDUP_LOGS"] == "x"


def test_every_incarnation_has_a_cluster_name_of_its_own() -> None:
    assert resolve(a_pod(), a_world())["RAY_CLUSTER_NAME"] == "train-abcde"


@pytest.mark.parametrize(
    ("command", "moved"),
    [
        ("run /etc/spec/a.json", "run /here/a.json"),
        ("run --spec=/etc/spec/a.json", "run --spec=/here/a.json"),
        ("run '/etc/spec/a b.json'", "run '/here/a b.json'"),
        ("run /etc/spec", "run /here"),
        ("run /etc/specs/a.json", "run /etc/specs/a.json"),
        ("run /other/etc/spec/a.json", "run /other/etc/spec/a.json"),
        ("python -c \"open('/etc/spec/a')\"", "python -c \"open('/here/a')\""),
    ],
)
def test_paths_below_a_mount_are_moved_in_a_command(command: str, moved: str) -> None:
    assert relocated_command(command, {"/etc/spec": Path("/here")}) == moved


def test_the_longest_mount_path_wins() -> None:
    pod = a_pod(volumeMounts=[{"name": "a", "mountPath": "/x"}, {"name": "b", "mountPath": "/x/y", "subPath": "z"}])
    found = mounts(pod, Path("/pods"))
    assert relocated("/x/y/f", found) == f"/pods/{uid_of(pod)}/b/z/f"
    assert relocated("/x/f", found) == f"/pods/{uid_of(pod)}/a/f"
    assert relocated("/xy", found) == "/xy"


def test_a_projected_volume_joins_its_sources() -> None:
    pod = a_pod(
        volumes=[
            {
                "name": "access",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 1200}},
                        {"configMap": {"name": "ca", "items": [{"key": "crt", "path": "ca.crt"}]}},
                        {
                            "downwardAPI": {
                                "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                            }
                        },
                    ]
                },
            }
        ]
    )
    (volume,) = volumes(pod, a_world(pod, a_config_map("ca", crt="PEM", other="x")))
    assert volume.files == {"ca.crt": b"PEM", "namespace": b"team"}
    assert [(token.path, token.seconds) for token in volume.tokens] == [("token", 1200)]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"secret": {"secretName": "keys"}}, 'secret "keys" not found'),
        (
            {"configMap": {"name": "there", "items": [{"key": "b", "path": "b"}]}},
            "references non-existent config key: b",
        ),
        ({"persistentVolumeClaim": {"claimName": "disk"}}, "the embedded mode has no persistentVolumeClaim volumes"),
    ],
)
def test_a_volume_that_cannot_be_made_says_why(volume: Mapping[str, JSON], message: str) -> None:
    pod = a_pod(volumes=[{"name": "v", **volume}])
    with pytest.raises(MountError) as caught:
        volumes(pod, a_world(pod, a_config_map("there", a="1")))
    assert str(caught.value) == f'MountVolume.SetUp failed for volume "v" : {message}'
    assert isinstance(caught.value, ContainerError)


def test_a_changed_config_map_changes_the_files_and_nothing_else(tmp_path: Path) -> None:
    assert put(tmp_path, {"a": b"1", "b": b"2"})
    before = (tmp_path / "a").stat().st_mtime_ns
    assert not put(tmp_path, {"a": b"1", "b": b"2"})
    assert put(tmp_path, {"a": b"1", "c": b"3"})
    drop(tmp_path, ["a", "c"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    assert (tmp_path / "a").stat().st_mtime_ns == before


def test_a_deleted_pod_stays_until_its_job_has_ended() -> None:
    job = a_running_job("RUNNING")
    pod = its_head(its_cluster(job, "train-abcde"), deleting=True)
    gone = RemovePod(Ref(POD, "team", text(pod, "metadata", "name")), uid_of(pod))
    assert told(pod, a_world(pod, ray=ray_with("train-abcde", "RUNNING"))) == (Stop("train-abcde"),)
    assert told(pod, a_world(pod, ray=ray_with("train-abcde", "STOPPED"))) == (gone,)
    assert told(pod, a_world(pod, ray=RayFacts(jobs={"train-abcde": None}))) == (gone,)
    assert told(pod, without_ray(a_world(pod))) == ()


def test_a_deleted_pod_stays_within_its_grace_until_the_submitter_of_its_job_has_ended() -> None:
    job = a_running_job()
    pod = its_head(its_cluster(job, "train-abcde"), deleting=True)
    over = a_world(job, pod, ray=ray_with("train-abcde", "STOPPED"))
    followed = replace(over, followed=frozenset({"train-abcde"}), now=datetime.fromisoformat(STARTED))
    within = replace(followed, now=followed.now - timedelta(seconds=1))
    removed = (RemovePod(Ref(POD, "team", text(pod, "metadata", "name")), uid_of(pod)),)
    assert told(pod, within) == ()
    assert told(pod, followed) == removed
    assert told(pod, replace(within, followed=frozenset())) == removed


def test_a_deleted_pod_stays_until_its_applications_are_gone() -> None:
    service = a_service()
    pod = its_head(its_cluster(service, "shop-abcde"), deleting=True)
    serving = RayFacts(applications={"team.shop-abcde.endpoint": {"status": "DELETING"}})
    other = RayFacts(applications={"team.shop-fghij.endpoint": {"status": "RUNNING"}})
    assert told(pod, a_world(pod, ray=serving)) == ()
    assert len(told(pod, a_world(pod, ray=other))) == 1
