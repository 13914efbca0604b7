"""What KubeRay tells of the Serve applications of a RayService, in a sentence that a status can hold."""

from collections.abc import Iterator

from drivetrain.api import image
from drivetrain.api.documents import Document, mapping, text
from drivetrain.api.errors import ImageError
from drivetrain.controller.core.conditions import Fact, clipped

GIVEN_UP = ("DEPLOY_FAILED", "UNHEALTHY")
"""States that Serve does not leave before its configuration or its surroundings change."""
_SETTLED = ("", "RUNNING", "HEALTHY")
_WORDS_LIMIT = 600


def failure(service: Document | None) -> Fact | None:
    """Why an application of this RayService does not serve, where Serve has given it up."""
    for name, application in _applications(service):
        if text(application, "status") in GIVEN_UP:
            words = _words(application)
            if ImageError.__name__ in words:  # raised by the endpoint's `build`; Serve passes its name on
                return Fact(image.REASON, words.partition(f"{ImageError.__name__}: ")[2] or words)
            told = f"Serve application {name} is {text(application, 'status')}: {words}"
            remedy = "Correct what it names; the replicas' logs tell more."
            return Fact("ServeApplicationFailed", f"{told} {remedy}")
    return None


def progress(service: Document | None) -> str:
    """What the first application that does not run yet is waiting for; empty where none says anything."""
    for name, application in _applications(service):
        state = text(application, "status")
        if state not in _SETTLED:
            return f"Serve application {name} is {state}: {_words(application)}"
    return ""


def _applications(service: Document | None) -> Iterator[tuple[str, Document]]:
    """Those of the cluster that serves, then those of the one that is to serve."""
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        found = mapping(service or {}, "status", part, "applicationStatuses")
        yield from ((name, mapping(found, name)) for name in sorted(found))


def _words(application: Document) -> str:
    """The messages of an application and of its deployments that are not healthy."""
    told = [_line(text(application, "message"))]
    parts = mapping(application, "serveDeploymentStatuses")
    for name in sorted(parts):
        part = mapping(parts, name)
        if text(part, "status") not in _SETTLED:
            told.append(f"{name} is {text(part, 'status')}: {_line(text(part, 'message'))}")
    found = list(dict.fromkeys(each.removesuffix(": ") for each in told if each))
    return clipped("; ".join(found) or "it gives no reason", _WORDS_LIMIT).rstrip(".") + "."


def _line(message: str) -> str:
    """The first and the last line: in between lies a traceback, and its last line is the error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else ""
