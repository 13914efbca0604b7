"""What a driver's Pod finds around it: an https API server with its report ConfigMap, a token, and its environment."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from drivetrain.api.report import TrainingReport
from tests.support.tls import certificate, https_server

CLUSTER = "juice-1-a1-xyz"


@dataclass
class Pod:
    """What the API server was asked, and what it answers."""

    env: dict[str, str]
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    status: int = 200
    annotations: dict[str, str] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def reports(self) -> list[TrainingReport]:
        """What was reported, in order."""
        with self.changed:
            bodies = [body for method, _, _, body in self.asked if method == "PATCH"]
        return [TrainingReport.model_validate_json(body["data"][CLUSTER]) for body in bodies]

    def wait_until_asked(self, count: int, deadline: float) -> None:
        """Waits for that many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, deadline)


@contextmanager
def a_pod(folder: Path) -> Iterator[Pod]:
    """A Pod whose API server answers until the context ends; `folder` holds token, certificate and scratch space."""
    pod = Pod({})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with pod.changed:
                pod.asked.append((self.command, self.path, dict(self.headers), json.loads(body) if body else None))
                pod.changed.notify_all()
            answer = json.dumps({"metadata": {"annotations": pod.annotations}}).encode()
            self.send_response(pod.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_PATCH = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    certificate(folder / "ca.crt")
    (folder / "token").write_text("secret-token\n")
    with https_server(Handler, folder / "ca.crt") as port:
        pod.env |= {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(port),
            "DRIVETRAIN_SERVICE_ACCOUNT": str(folder),
            "DRIVETRAIN_NAMESPACE": "team-a",
            "DRIVETRAIN_REPORT": "trainingrun-juice-1-report",
            "DRIVETRAIN_ATTEMPT": "1",
            "DRIVETRAIN_WORK": str(folder / "work"),
            "DRIVETRAIN_SPEC": str(folder / "spec.json"),
            "RAY_CLUSTER_NAME": CLUSTER,
        }
        yield pod
