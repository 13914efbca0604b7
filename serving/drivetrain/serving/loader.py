"""Loads policies by hash: the document that the operator mounts, then its model from the store, tried first."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from drivetrain.api import layout
from drivetrain.api.errors import ModelError
from drivetrain.api.model import CONTRACT_FILE, GRAPH_FILE
from drivetrain.api.policy import Policy, policy_hash
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.levers.grid import ActionGrid
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.graph import Graph, read_contract
from drivetrain.serving.trial import try_model
from drivetrain.store import ObjectMissingError, ObjectStore


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A policy ready to decide: compiled, with its graph unless it is today's policy."""

    hash: str
    policy: Policy
    valuation: Valuation
    graph: Graph | None = None


def read_policy(policies: Path, hash_: str) -> Policy | None:
    """The mounted policy document, None while it is not there. Raises ModelError, reason PolicyInvalid."""
    try:
        text = (policies / f"{hash_}.json").read_bytes()
    except FileNotFoundError:
        return None
    try:
        policy = Policy.model_validate_json(text)
    except ValueError as error:
        raise ModelError("PolicyInvalid", f"The policy {hash_} cannot be read: {error}") from error
    if policy_hash(policy) != hash_:
        raise ModelError("PolicyInvalid", f"The document {hash_}.json holds the policy {policy_hash(policy)}.")
    return policy


def load_variant(hash_: str, policy: Policy, store: ObjectStore, models: Path) -> Variant:
    """A variant of the policy: its model fetched to `models`, tried in a child process, opened. Blocks for seconds.

    Raises ModelError (ModelNotFound, ModelInvalid), and StoreError when the store does not answer, which is worth
    another try.
    """
    if policy.model is None:
        return Variant(hash_, policy, compiled(policy))
    folder = fetch_model(policy.model.digest, store, models)
    contract = read_contract(folder)
    if contract.target != policy.target:
        raise ModelError("ModelInvalid", f"The model predicts {contract.target.name}, the policy {policy.target.name}.")
    levers = {lever.name for lever in policy.levers}
    strange = [column.name for column in contract.inputs if column.role == "Lever" and column.name not in levers]
    if strange:
        raise ModelError("ModelInvalid", f"The model reads the levers {strange}, which the policy does not set.")
    try_model(folder)
    return Variant(hash_, policy, compiled(policy, contract.multipliers), Graph.open(folder, contract))


def compiled(policy: Policy, multipliers: Mapping[str, float] | None = None) -> Valuation:
    """The policy's valuation; policies with equal levers share one grid, and with it the predictions on it."""
    return dataclasses.replace(Valuation.of(policy, multipliers), grid=_grid(policy.levers))


@lru_cache(maxsize=16)
def _grid(levers: tuple[Lever, ...]) -> ActionGrid:
    return ActionGrid.of(levers)


def fetch_model(digest: str, store: ObjectStore, models: Path) -> Path:
    """The folder of a model version, fetched once a node; its contract's SHA-256 is its name.

    Raises ModelError: ModelNotFound, or ModelInvalid when a file was altered.
    """
    folder = models / digest
    if folder.exists():
        return folder
    scratch = models / f".{digest}-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        for name in (CONTRACT_FILE, GRAPH_FILE):
            try:
                store.download(f"{layout.model(digest)}/{name}", scratch / name)
            except ObjectMissingError:
                raise ModelError(
                    "ModelNotFound",
                    f"There is no {name} at {store.uri(layout.model(digest))}.",
                    remedy="Register the version again, or roll out another one.",
                ) from None
        unaltered(CONTRACT_FILE, (scratch / CONTRACT_FILE).read_bytes(), digest)
        unaltered(GRAPH_FILE, (scratch / GRAPH_FILE).read_bytes(), read_contract(scratch).graph)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.exists():  # else another replica on this node was faster
                raise
        return folder
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unaltered(name: str, content: bytes, sha256: str) -> bytes:
    """The content of a published file. Raises ModelError, reason ModelInvalid, when it is not what its hash says."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError("ModelInvalid", f"{name} was altered: its SHA-256 is {found}, not {sha256}.")
    return content
