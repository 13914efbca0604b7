"""Downloads with a checksum, progress in megabytes, and a deadline. Standard library only."""

import hashlib
import io
import re
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import PurePosixPath

from drivetrain.api.errors import ComponentError

Say = Callable[[str], None]

CONNECT_SECONDS = 10.0
"""A refused or unanswered connection must fall through to the next way quickly."""

_CHUNK = 1 << 20


def fetch(url: str, say: Say, *, sha256: str = "") -> bytes:
    """Return what `url` holds, saying how much has come at most once a second. Raises ComponentError.

    With `sha256` (hex), anything else than that content is refused.
    """
    content = io.BytesIO()
    try:
        with _open(url) as response:
            total = int(response.headers.get("Content-Length") or 0)
            said = time.monotonic()
            while chunk := response.read(_CHUNK):
                content.write(chunk)
                if time.monotonic() - said >= 1:
                    said = time.monotonic()
                    of = f" of {total / 1e6:.0f}" if total else ""
                    say(f"{content.tell() / 1e6:.0f}{of} MB")
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ComponentError(f"{url} cannot be fetched: {reason}.") from error
    if sha256 and hashlib.sha256(content.getvalue()).hexdigest() != sha256:
        raise ComponentError(f"{url} does not have the expected checksum {sha256}.")
    return content.getvalue()


def published_checksum(text: str, file: str) -> str:
    """Find the sha256 of `file` in a published list (`<hex>  <name>` lines or the hex alone). Raises ComponentError."""
    for line in text.splitlines():
        found = re.fullmatch(r"\s*([0-9a-f]{64})(?:\s+\*?(\S+))?\s*", line)
        if found and (found.group(2) is None or found.group(2).removeprefix("./") == file):
            return found.group(1)
    raise ComponentError(f"The published checksums do not name {file}.")


def member(archive: bytes, name: str) -> bytes:
    """Return the file called `name` from a gzipped tar archive. Raises ComponentError."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        for entry in files:
            if entry.isfile() and PurePosixPath(entry.name).name == name:
                content = files.extractfile(entry)
                assert content is not None
                return content.read()
    raise ComponentError(f"The release archive holds no {name}.")


def _open(url: str) -> HTTPResponse:
    if not url.startswith("https://"):
        raise ComponentError(f"{url} is not https; refused.")
    response = urllib.request.urlopen(url, timeout=CONNECT_SECONDS)  # noqa: S310 (https was just checked)
    assert isinstance(response, HTTPResponse)
    return response
