"""Plain requests to a real API server, as whoever it may be: what Helm, a person or the operator would send."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from drivetrain.api.documents import JSON, Document, name_of, namespace_of, text
from tests.support.api_server import ApiServer

APPLY = "apply-patch+yaml"


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    body: Any
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        """Why it refused."""
        return str(self.body.get("message", ""))


@dataclass(frozen=True)
class Rest:
    """JSON over HTTPS; an administrator unless `as_user` names somebody to impersonate."""

    server: ApiServer
    user: str = ""

    def as_user(self, user: str) -> "Rest":
        """The same server for another user."""
        return replace(self, user=user)

    def __call__(self, method: str, path: str, body: object = None, kind: str = "json") -> Answer:
        """Send one request."""
        headers = {"Authorization": f"Bearer {self.server.token}", "Content-Type": f"application/{kind}"}
        if self.user:
            headers |= {"Impersonate-User": self.user, "Impersonate-Group": "system:authenticated"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.server.url}{path}", method=method, data=data, headers=headers)
        context = ssl.create_default_context(cafile=str(self.server.ca_file))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return Answer(answer.status, json.load(answer), tuple(answer.headers.get_all("Warning") or ()))
        except urllib.error.HTTPError as error:
            told = error.read().decode()
            body = (
                json.loads(told) if told.startswith("{") else {"message": told}
            )  # an unknown group is answered in text
            return Answer(error.code, body, tuple(error.headers.get_all("Warning") or ()))

    def path_of(self, document: Mapping[str, JSON], *, named: bool = True) -> str:
        """Where an object lies, or its collection; the server is asked how its kind is called."""
        version = text(document, "apiVersion")
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural, namespaced = _resource(self.server, group, text(document, "kind"))
        scope = f"/namespaces/{namespace_of(document)}" if namespaced else ""
        return f"{group}{scope}/{plural}" + (f"/{name_of(document)}" if named else "")

    def apply(self, document: Document, *, dry: bool = False, manager: str = "helm") -> Answer:
        """Server-side apply; unknown fields are refused."""
        query = f"?fieldManager={manager}&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self("PATCH", self.path_of(document) + query, document, APPLY)

    def create(self, document: Document, *, dry: bool = False) -> Answer:
        """Create; unknown fields are refused."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self("POST", self.path_of(document, named=False) + query, document)

    def delete(self, document: Document) -> Answer:
        """Delete."""
        return self("DELETE", self.path_of(document))


@cache
def _resource(server: ApiServer, group: str, kind: str) -> tuple[str, bool]:
    served = Rest(server)("GET", group).body.get("resources", [])
    found = next((each for each in served if each["kind"] == kind and "/" not in each["name"]), None)
    assert found is not None, f"{group} does not serve {kind}"
    return str(found["name"]), bool(found["namespaced"])


def until(holds: Callable[[], object], what: str, *, deadline: float = 60.0) -> None:
    """Wait for a condition; fails with `what` after the deadline."""
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, f"not in {deadline:.0f} s: {what}"
        time.sleep(0.1)


def serve(rest: Rest, definition: Document) -> None:
    """Install a CustomResourceDefinition and wait until its kind can be listed."""
    answer = rest.apply(definition)
    assert answer.status in (200, 201), answer.message
    spec: Any = definition["spec"]
    version = next(each["name"] for each in spec["versions"] if each["storage"])
    path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
    until(lambda: rest("GET", path).status == 200, f"{path} is served")
