"""Calls a Service 50 times a second, until /tmp/stop is there: `caller.py ADDRESS fresh`, each time anew, or `kept`."""

import http.client
import json
import sys
import time
from pathlib import Path

PORT, EVERY = 8000, 0.02


def connected() -> http.client.HTTPConnection:
    """A connection that is opened by its first request."""
    return http.client.HTTPConnection(sys.argv[1], PORT, timeout=5)


def answer(connection: http.client.HTTPConnection) -> str:
    """What the endpoint answers. Raises OSError or HTTPException."""
    connection.request("GET", "/")
    found = connection.getresponse()
    body = found.read().decode()
    if found.status != 200:
        raise OSError(f"{found.status} {body[:80]}")
    return body


def say(text: str) -> None:
    """Prints at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


keeps = sys.argv[2] == "kept"
connection = connected()
seen: dict[str, int] = {}
failures: list[str] = []
last = ""
while not Path("/tmp/stop").exists():
    began = time.monotonic()
    try:
        body = answer(connection)
        if body != last:
            say(f"answered by {body}")
        last = body
        seen[body] = seen.get(body, 0) + 1
        if not keeps:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        say(f"failed: {type(error).__name__}: {error}, after {last or 'nothing'}")
        if last:  # before the first answer the Service itself is on its way to the node's rules
            failures.append(f"{type(error).__name__}: {error}, after {last}")
        connection.close()
    time.sleep(max(0.0, EVERY - (time.monotonic() - began)))
say(json.dumps({"seen": seen, "failures": failures}))
