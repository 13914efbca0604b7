"""Asks an endpoint ten times a second, each time over a new connection: `asking.py URL`, with the key in DECIDE.

Prints what came of it as a line of JSON every second: answers, and what else there was.
"""

import json
import os
import sys
import time
from collections import Counter

import urllib3


def main(url: str) -> None:
    """Asks for ever."""
    headers = {"Authorization": f"Bearer {os.environ['DECIDE']}", "Connection": "close"}
    answers, failures, told = 0, Counter[str](), 0.0
    while True:
        started = time.monotonic()
        try:
            answer = urllib3.request("GET", url, headers=headers, timeout=10.0, retries=False)
        except urllib3.exceptions.HTTPError as error:
            failures[type(error).__name__] += 1
        else:
            if answer.status == 200:
                answers += 1
            else:
                failures[f"{answer.status} {answer.data[:100].decode()}"] += 1
        if started - told >= 1:
            told = started
            sys.stdout.write(json.dumps({"answers": answers, "failures": failures}) + "\n")
            sys.stdout.flush()
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
