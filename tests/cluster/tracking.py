"""The MLflow that a release brings along, asked over REST as anybody may who reaches it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import urllib3

from tests.cluster.forwarding import forwarded
from tests.cluster.kubectl import Kubectl
from tests.cluster.release import NAME


@dataclass(frozen=True, slots=True)
class Mlflow:
    """Every method fails when MLflow refuses."""

    url: str

    @classmethod
    @contextmanager
    def of(cls, system: Kubectl) -> Iterator[Self]:
        """The release's, reached from outside."""
        with forwarded(system, f"service/{NAME}-mlflow", 5000) as url:
            yield cls(url)

    def get(self, path: str, **fields: str) -> Any:
        """An answer."""
        return self._answer(path, urllib3.request("GET", self._address(path), fields=fields, timeout=30.0))

    def post(self, path: str, **body: object) -> Any:
        """An answer."""
        return self._answer(path, urllib3.request("POST", self._address(path), json=body, timeout=30.0))

    def version(self, name: str, alias: str) -> str:
        """The version that an alias points to."""
        found = self.get("registered-models/alias", name=name, alias=alias)
        return str(found["model_version"]["version"])

    def run_of(self, name: str, version: str) -> str:
        """The run that registered a version."""
        return str(self.get("model-versions/get", name=name, version=version)["model_version"]["run_id"])

    def metrics(self, run: str) -> Mapping[str, float]:
        """What a run logged last of each metric."""
        found = self.get("runs/get", run_id=run)["run"]["data"]["metrics"]
        return {each["key"]: each["value"] for each in found}

    def registered(self, name: str, source: str) -> str:
        """Registers a version of somebody's model."""
        return str(self.post("model-versions/create", name=name, source=source)["model_version"]["version"])

    def everything(self) -> dict[str, bytes]:
        """All experiments, runs, models and versions, as JSON."""
        experiments = self.post("experiments/search", max_results=1000)
        ids = [each["experiment_id"] for each in experiments["experiments"]]
        found = {
            "experiments": experiments,
            "runs": self.post("runs/search", experiment_ids=ids, max_results=1000),
            "models": self.get("registered-models/search", max_results="1000"),
            "versions": self.get("model-versions/search", max_results="1000"),
        }
        return {f"MLflow's {name}": json.dumps(part).encode() for name, part in found.items()}

    def _address(self, path: str) -> str:
        return f"{self.url}/api/2.0/mlflow/{path}"

    @staticmethod
    def _answer(path: str, answer: urllib3.BaseHTTPResponse) -> Any:
        assert answer.status == 200, f"{path}: {answer.data[:300]!r}"
        return answer.json()
