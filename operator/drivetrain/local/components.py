"""The components of the embedded mode: what each runs, what it needs first, and how it says that it is ready. Pure."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain.api.names import NO_TELEMETRY
from drivetrain.local.settings import REPLICA_PORTS, Settings
from drivetrain.local.statedir import StateDir

BUCKET = "drivetrain"
"""The bucket that projects and MLflow use."""

MARK = "DRIVETRAIN_PROCESS_OF"
"""Every process of an environment carries its state directory in this variable, so that none is ever left behind."""

COMPONENT = "DRIVETRAIN_COMPONENT"
"""Likewise the component that it belongs to; the workers of Ray inherit it."""

LOGICAL_CPUS = 64
"""What Ray believes to have: requests are bookkeeping here, real parallelism is `parallelTrials`."""

LOGICAL_GPUS = 8
"""Likewise where there is no real one: a run that asks for a GPU is carried out on CPUs and does not wait for ever."""

_OBJECT_STORE_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Ready when GET `url` answers 2xx."""

    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class HeartbeatProbe:
    """Ready while `file` was touched less than `seconds` ago."""

    file: Path
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Component:
    """One process to keep running. Seconds are wall-clock time on a slow, busy machine."""

    name: str
    command: tuple[str, ...]
    probe: HttpProbe | HeartbeatProbe
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    address: str = ""
    start_seconds: float = 120.0
    silence_seconds: float = 120.0
    stop_seconds: float = 10.0


SET_UP_CLUSTER = "cluster set-up"
SET_UP_STORE = "store set-up"
"""Steps that run once when what they need is ready: resource definitions and rights; the bucket."""

SET_UP_NEEDS = {SET_UP_CLUSTER: ("kube-apiserver",), SET_UP_STORE: ("versitygw",)}


def components(
    state: StateDir, settings: Settings, programs: Mapping[str, Path], *, sidecar: bool
) -> tuple[Component, ...]:
    """Return all components; `sidecar` keeps S3 metadata in files, for file systems without extended attributes."""
    return (
        _etcd(state, settings, programs),
        _api_server(state, settings, programs),
        _controllers(state, settings, programs),
        _store(state, settings, programs, sidecar=sidecar),
        _mlflow(state, settings),
        _ray(state, settings),
        Component(
            name="agent",
            command=(sys.executable, "-m", "drivetrain.local.agent", str(state.root)),
            needs=(SET_UP_CLUSTER, "ray"),
            probe=HeartbeatProbe(state.heartbeat),
        ),
        Component(
            name="operator",
            command=(sys.executable, "-m", "drivetrain.controller.main"),
            environment={"KUBECONFIG": str(state.operator_kubeconfig), **operator_environment(settings)},
            needs=(SET_UP_CLUSTER,),
            probe=HttpProbe(f"http://127.0.0.1:{settings.ports['operator']}/readyz"),
            address=f"http://127.0.0.1:{settings.ports['operator']}/metrics",
        ),
    )


def operator_environment(settings: Settings) -> dict[str, str]:
    """What the chart would pass to the operator."""
    return {
        "DRIVETRAIN_MLFLOW_URL": settings.mlflow_url,
        "DRIVETRAIN_RAY_IMAGE": "local",
        "DRIVETRAIN_HTTP_HOST": "127.0.0.1",
        "DRIVETRAIN_HTTP_PORT": str(settings.ports["operator"]),
        # One name for every process in turn: the supervisor starts one when the last is gone, so it need not wait until
        # the Lease of a killed one runs out.
        "DRIVETRAIN_IDENTITY": "embedded",
    }


def store_environment(settings: Settings) -> dict[str, str]:
    """Credentials of the S3 server for AWS clients."""
    return {
        "AWS_ACCESS_KEY_ID": settings.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": settings.s3_url,
    }


def _etcd(state: StateDir, settings: Settings, programs: Mapping[str, Path]) -> Component:
    url = f"http://127.0.0.1:{settings.ports['etcd']}"
    peer = f"http://127.0.0.1:{settings.ports['etcd-peer']}"
    return Component(
        name="etcd",
        command=(
            str(programs["etcd"]),
            f"--data-dir={state.root / 'etcd'}",
            "--name=local",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=local={peer}",
            "--force-new-cluster",  # a peer port that changed between two starts must not matter: there is one member
            "--log-level=warn",
            "--unsafe-no-fsync",  # a crash of the machine may lose seconds; a demo's disk is not a cluster's
        ),
        probe=HttpProbe(f"{url}/health"),
    )


def _api_server(state: StateDir, settings: Settings, programs: Mapping[str, Path]) -> Component:
    secrets = state.secrets
    return Component(
        name="kube-apiserver",
        command=(
            str(programs["kube-apiserver"]),
            f"--etcd-servers=http://127.0.0.1:{settings.ports['etcd']}",
            f"--secure-port={settings.ports['api']}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # nothing reaches the API server through a Service here
            f"--tls-cert-file={secrets / 'apiserver.crt'}",
            f"--tls-private-key-file={secrets / 'apiserver.key'}",
            f"--token-auth-file={secrets / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={secrets / 'service-account.key'}",
            f"--service-account-signing-key-file={secrets / 'service-account.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--cert-dir={secrets}",
            "--v=1",
        ),
        needs=("etcd",),
        probe=HttpProbe(f"{settings.api_url}/readyz", token=settings.admin_token),
        address=settings.api_url,
    )


def _controllers(state: StateDir, settings: Settings, programs: Mapping[str, Path]) -> Component:
    controllers = ("garbage-collector-controller", "namespace-controller", "serviceaccount-controller")
    return Component(
        name="kube-controller-manager",
        command=(
            str(programs["kube-controller-manager"]),
            f"--kubeconfig={state.kubeconfig}",
            f"--controllers={','.join(controllers)},root-ca-certificate-publisher-controller",
            f"--root-ca-file={state.secrets / 'ca.crt'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={settings.ports['controllers']}",
            f"--tls-cert-file={state.secrets / 'apiserver.crt'}",
            f"--tls-private-key-file={state.secrets / 'apiserver.key'}",
            "--v=1",
        ),
        needs=(SET_UP_CLUSTER,),  # the garbage collector would need half a minute to notice definitions that come later
        probe=HttpProbe(f"https://127.0.0.1:{settings.ports['controllers']}/healthz"),
    )


def _store(state: StateDir, settings: Settings, programs: Mapping[str, Path], *, sidecar: bool) -> Component:
    metadata = ("--sidecar", str(state.root / "s3-metadata")) if sidecar else ()
    address = f"127.0.0.1:{settings.ports['s3']}"
    return Component(
        name="versitygw",
        command=(
            str(programs["versitygw"]),
            "--port", address, "--quiet", "--keep-alive", "--health", "/healthz",
            "posix", *metadata, str(state.root / "s3"),
        ),
        environment={"ROOT_ACCESS_KEY": settings.s3_access_key, "ROOT_SECRET_KEY": settings.s3_secret_key},
        probe=HttpProbe(f"{settings.s3_url}/healthz"),
        address=settings.s3_url,
    )  # fmt: skip


def _mlflow(state: StateDir, settings: Settings) -> Component:
    return Component(
        name="mlflow",
        command=(
            sys.executable, "-m", "mlflow", "server",
            "--host", "127.0.0.1", "--port", str(settings.ports["mlflow"]), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{state.root / 'mlflow' / 'mlflow.db'}",
            "--artifacts-destination", f"s3://{BUCKET}/mlflow",
            "--uvicorn-opts", "--log-level warning",  # else each probe is a line of the log
        ),
        environment={
            **store_environment(settings),
            **NO_TELEMETRY,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for evaluations that nobody asks for
        },
        probe=HttpProbe(f"{settings.mlflow_url}/health"),
        address=settings.mlflow_url,
        start_seconds=240.0,
    )  # fmt: skip


def _ray(state: StateDir, settings: Settings) -> Component:
    ports = settings.ports
    flags = {
        "node-ip-address": "127.0.0.1",
        "port": ports["ray-gcs"],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports["ray-dashboard"],
        "ray-client-server-port": ports["ray-client"],
        "node-manager-port": ports["ray-node-manager"],
        "object-manager-port": ports["ray-object-manager"],
        "dashboard-agent-listen-port": ports["ray-agent"],
        "dashboard-agent-grpc-port": ports["ray-agent-grpc"],
        "runtime-env-agent-port": ports["ray-runtime-env"],
        "metrics-export-port": ports["ray-metrics"],
        "min-worker-port": 0,  # any: a block of its own would have to hold every actor of every job
        "max-worker-port": 0,
        "num-cpus": LOGICAL_CPUS,
        **({} if Path("/dev/nvidiactl").exists() else {"num-gpus": LOGICAL_GPUS}),
        "object-store-memory": _OBJECT_STORE_BYTES,
        "temp-dir": state.sockets / "ray",
    }
    return Component(
        name="ray",
        command=(
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
            "--include-dashboard=true", "--log-style=record", *(f"--{name}={value}" for name, value in flags.items()),
        ),
        environment=ray_environment(state, settings),
        probe=HttpProbe(f"{settings.ray_url}/api/version", token=settings.ray_token),
        address=settings.ray_url,
        start_seconds=240.0,
        stop_seconds=20.0,
    )  # fmt: skip


def ray_environment(state: StateDir, settings: Settings) -> dict[str, str]:
    """The environment of Ray and of everything that runs on it: token, HAProxy with ports and sockets of its own."""
    ports = settings.ports
    haproxy = state.sockets / "haproxy"
    first = settings.replica_ports
    return {
        # the same interpreter for every entry point, whatever the caller's PATH says
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # so that a manifest without data.store.endpoint means the S3 server here, as on AWS it means AWS
        "AWS_ENDPOINT_URL": settings.s3_url,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": settings.ray_token,
        **NO_TELEMETRY,
        # with 64 logical CPUs Ray would otherwise start, and keep, 64 idle workers
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_num_workers_soft_limit": str(max(4, os.cpu_count() or 1)),
        "RAY_JOB_STOP_WAIT_TIME_S": "10",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # one proxy, on this machine, hears of a removal at once
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["serve-metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["serve-stats"]),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["serve-fallback"]),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports["serve-fallback-grpc"]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICA_PORTS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + REPLICA_PORTS),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + 2 * REPLICA_PORTS - 1),
    }
