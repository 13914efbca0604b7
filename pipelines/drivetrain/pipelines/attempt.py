"""Who owns a run's work: the fence of (attempt, incarnation) on the store.

Kueue may restart a run's cluster while Pods of the old one still work, and a lost node may come back after the next
attempt began. So a driver claims `attempt-<n>/owner` before it works, and asks before each commit whether it still owns
it. The claim of attempt n also takes the owner objects of all lower attempts: one read then answers every check.
"""

import json
from dataclasses import asdict, dataclass

from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import FencedError, StoreError
from drivetrain.api.layout import attempt as attempt_key
from drivetrain.store import ObjectMissingError, ObjectStore

_TRIES = 20


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A driver's rank: higher attempts first, then higher incarnations of the same attempt's cluster."""

    attempt: int
    incarnation: int
    cluster: str = ""
    """RAY_CLUSTER_NAME, for people."""

    @property
    def rank(self) -> tuple[int, int]:
        """What claims are compared by."""
        return self.attempt, self.incarnation


class Fence:
    """A claim that was made; `check` tells whether it still holds."""

    def __init__(self, store: ObjectStore, run_uid: str, claim: Claim) -> None:
        """Claims the attempt. Raises FencedError when a higher claim holds it, StoreError."""
        self._store, self._run_uid, self.claim = store, run_uid, claim
        for attempt in range(claim.attempt, 0, -1):
            self._take(attempt)

    @property
    def writer(self) -> str:
        """Names this attempt and incarnation in keys."""
        return f"{self.claim.attempt}.{self.claim.incarnation}"

    def check(self) -> None:
        """Raises FencedError when a higher attempt or incarnation owns the work, StoreError when it cannot be known."""
        try:
            owner = self._owner(self.claim.attempt)
        except ObjectMissingError:
            raise FencedError(
                f"The claim of attempt {self.claim.attempt} is gone from the store.",
                remedy="Somebody deleted it; start another attempt.",
            ) from None
        if owner.rank != self.claim.rank:
            raise self._fenced(owner)

    def _take(self, attempt: int) -> None:
        """Writes our claim over any lower one."""
        key = self._key(attempt)
        own = canonical_json(asdict(self.claim)).encode()
        for _ in range(_TRIES):
            info = self._store.head(key)
            if info is None:
                if self._store.put_if_absent(key, own):
                    return
                continue
            owner = self._owner(attempt)
            if owner.rank == self.claim.rank:
                return  # ours, by this driver or by its repetition after a lost answer
            if owner.rank > self.claim.rank:
                raise self._fenced(owner)
            if self._store.put_if_match(key, own, info.etag):
                return
        raise StoreError("StoreUnavailable", f"The claim {self._store.uri(key)} keeps changing.", remedy="Try again.")

    def _owner(self, attempt: int) -> Claim:
        return Claim(**json.loads(self._store.get(self._key(attempt))))

    def _key(self, attempt: int) -> str:
        return f"{attempt_key(self._run_uid, attempt)}/owner"

    def _fenced(self, owner: Claim) -> FencedError:
        return FencedError(
            f"Attempt {self.claim.attempt}, incarnation {self.claim.incarnation} is over: "
            f"attempt {owner.attempt}, incarnation {owner.incarnation} ({owner.cluster}) owns the run."
        )
