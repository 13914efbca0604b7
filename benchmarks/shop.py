"""A shop to serve: a model that the assembly line trained and published, its policies, and visitors who keep coming."""

from pathlib import Path

import numpy as np
import orjson

from drivetrain.api import layout
from drivetrain.api.canonical import canonical_json
from drivetrain.api.policy import EndpointConfig, Policy, policy_hash
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.store import DirectoryStore
from examples.orange_juice.market import Market, read_contexts
from tests.sim.modelling.orange_juice import history, run_spec, trained, training_rows

KEY = "benchmark-key"
ESTIMATOR = "LightGBM"


class Shop:
    """The orange juice project below one folder, as the operator would lay it out for an endpoint."""

    def __init__(self, root: Path, *, rows: int = 4_000) -> None:
        self.root = root
        self.policies, self.keys, self.work = root / "policies", root / "keys", root / "work"
        for folder in (self.policies, self.keys, self.work):
            folder.mkdir(parents=True)
        for purpose in ("decide", "outcomes"):
            (self.keys / purpose).write_text(KEY if purpose == "decide" else f"{KEY}-outcomes")
        self._rows = rows
        self._store = DirectoryStore(root / "store")
        self.baseline = self._mount(self._policy(None, ""))

    def publish(self, seed: int) -> tuple[str, Path]:
        """Trains one model of `ESTIMATOR` on past visits and publishes it; its policy's hash and its folder."""
        rng = np.random.default_rng(seed)
        spec = self._spec
        built = trained(
            training_rows(history(Market(), self._rows, rng, loyalty=True), rng), spec, self.root / f"training-{seed}"
        )
        for file in ("model.onnx", "contract.json", "reference.json"):
            key = f"{layout.model(built.contract.digest)}/{file}"
            self._store.put(key, (built.folder / file).read_bytes())
        return self._mount(self._policy(built.contract.digest, str(seed))), built.folder

    def config(self, stable: str, **changes: object) -> EndpointConfig:
        """What the operator would tell the endpoint; the demo's exploration, no rollout unless `changes` say so."""
        fields: dict[str, object] = {
            "stable": stable,
            "baseline": self.baseline,
            "salt": "s",
            "exploration": Exploration(share=0.2),
            "holdout": 0.01,
        }
        return EndpointConfig.model_validate(fields | changes)

    @property
    def _spec(self) -> RunSpec:
        return run_spec(
            loyalty=True,
            candidates=[{"name": "trees", "estimator": ESTIMATOR}],
            tuning={"algorithm": "Grid", "trials": 1, "seed": 7},
            ensemble={"methods": []},
        )

    def _policy(self, digest: str | None, version: str) -> Policy:
        spec = self._spec
        return Policy(
            model=VersionReference(version=version, digest=digest, run=f"run-{version}") if digest else None,
            objective=spec.objective,
            levers=spec.levers,
            columns=spec.data.columns,
            target=spec.data.target,
            slices=spec.data.slices,
        )

    def _mount(self, policy: Policy) -> str:
        hash_ = policy_hash(policy)
        (self.policies / f"{hash_}.json").write_text(canonical_json(policy))
        return hash_


class Visitors:
    """Request bodies of `rows` visits each, real contexts drawn with replacement.

    `fresh` moves the rival's price by less than a hundredth of a cent, so that no two contexts are equal and no cache
    of contexts helps; without it the 1,070 contexts of the data come again and again.
    """

    def __init__(self, rows: int, *, fresh: bool, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._contexts = read_contexts()
        self._rows = rows
        self._fresh = fresh
        self._sent = 0
        self._name = f"visit-{seed}-{int(fresh)}"

    def body(self) -> bytes:
        """The next request."""
        drawn = self._contexts.draw(self._rows, self._rng)
        moved = self._rng.uniform(0, 1e-4, self._rows) if self._fresh else np.zeros(self._rows)
        columns: dict[str, list[object]] = {
            "visit_id": [f"{self._name}-{self._sent + number}" for number in range(self._rows)],
            "week": drawn.week.tolist(),
            "store": drawn.store.tolist(),
            "shelf_price": drawn.shelf_price.tolist(),
            "shelf_discount": drawn.shelf_discount.tolist(),
            "rival_price": (drawn.rival_price + moved).tolist(),
            "rival_discount": drawn.rival_discount.tolist(),
            "loyalty": drawn.loyalty.tolist(),
        }
        self._sent += self._rows
        return orjson.dumps(
            {"rows": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
        )
