"""Asks the endpoint at HOST for a decision five times a second, with the key in KEY, until /tmp/stop is there."""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

EVERY = 0.2
ADDRESS = f"http://{os.environ['HOST']}:8000/v1/decide"
ROW = {"renewal_id": "r-1", "tenure": 14, "spend": 52.0, "tickets": 2, "region": "north"}
HEADERS = {"Authorization": f"Bearer {os.environ['KEY']}", "Content-Type": "application/json"}

request = urllib.request.Request(ADDRESS, json.dumps({"rows": [ROW]}).encode(), HEADERS)
answers = 0
failures: list[str] = []
while not Path("/tmp/stop").exists():
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answers += len(json.load(answer)["rows"])
    except (OSError, http.client.HTTPException) as error:
        body = error.read()[:200] if isinstance(error, urllib.error.HTTPError) else b""
        told = f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error} {body!r}"
        sys.stdout.write(f"{told}\n")
        if answers:  # before the first answer the Service is on its way to the node's rules
            failures.append(told)
    if answers == 1:
        sys.stdout.write("answered\n")
    sys.stdout.flush()
    time.sleep(EVERY)
sys.stdout.write(f"{json.dumps({'answers': answers, 'failures': failures})}\n")
