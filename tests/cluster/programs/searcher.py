"""Searches a Pod's files: `searcher.py FOLDER...` reads a JSON object of names and texts, and prints where they are."""

import json
import os
import sys
from pathlib import Path

texts: dict[str, str] = json.load(sys.stdin)
found: list[str] = []
files = 0
for folder in sys.argv[1:]:
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at, name)
            try:
                content = path.read_bytes() if path.is_file() else b""
            except OSError:
                continue  # a log that was just rotated away, or a socket
            files += 1
            found += [f"{text} in {path}" for text, value in texts.items() if value.encode() in content]
sys.stdout.write(json.dumps({"files": files, "found": found}) + "\n")
