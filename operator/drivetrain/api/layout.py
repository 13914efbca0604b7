"""Where things lie below a project's store. Keys are relative to the store's prefix."""

from dataclasses import dataclass

DVC_CACHE = "dvc"
VERSIONS = "versions"
DECISIONS = "log/decisions"
OUTCOMES = "log/outcomes"
UNREADABLE = "log/unreadable"
SIGNING_KEY = "log/signing-key"
WRITTEN = (f"{DVC_CACHE}/", f"{VERSIONS}/", "log/", "stages/", "runs/", "models/", "monitor/")
"""Everything that a project writes; what else lies below its prefix is somebody else's."""


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a prefix without slashes at its ends."""

    bucket: str
    prefix: str

    def key(self, relative: str) -> str:
        """The object key of a path relative to the prefix."""
        return f"{self.prefix}/{relative}" if self.prefix else relative

    def uri(self, relative: str = "") -> str:
        """The s3:// address of a path relative to the prefix."""
        return f"s3://{self.bucket}/{self.key(relative)}".rstrip("/")

    def holds(self, uri: str) -> bool:
        """Whether `uri` lies below this prefix, with no way out of it."""
        return uri.startswith(self.uri() + "/") and ".." not in uri.split("/")


def location_of(uri: str) -> Location:
    """The bucket and prefix of s3://bucket/prefix."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return Location(bucket, prefix.strip("/"))


def version(md5: str) -> str:
    """A data version: data.dvc, config and manifest.json."""
    return f"{VERSIONS}/{md5}"


def stage(name: str, input_hash: str) -> str:
    """A stage's outputs, shared by all runs and attempts whose inputs are equal."""
    return f"stages/{name}/{input_hash}"


def attempt(run_uid: str, number: int) -> str:
    """What one attempt of a run writes: owner, trials, dossier."""
    return f"runs/{run_uid}/attempt-{number}"


def dossier(run_uid: str, number: int, submission: str) -> str:
    """What is left of one submission of an attempt after its cluster is gone (`drivetrain.api.dossier`)."""
    return f"{attempt(run_uid, number)}/dossier/{submission}.json"


def model(digest: str) -> str:
    """A published model, named by its contract: contract.json, model.onnx, reference.json. Written once."""
    return f"models/{digest}"


def monitor(deployment: str) -> str:
    """The Monitor's checkpoints and adjustments."""
    return f"monitor/{deployment}"
