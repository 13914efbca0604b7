"""Which of our objects a change may matter to: wake-up hints, never truth.

Children say so by label. Objects that KubeRay and Kueue make for a child carry no label of ours, but name it as their
owner, so the uids of children seen are remembered.

An event of one of our own objects that tells nothing new wakes nobody; most of them are our own writes of `status`,
and objects that wake each other by those would never rest. New is, for the object itself, whatever its last reconcile
did not read or write, a status that somebody wiped included; for those who read it, what they read of it: everything
but its status, since ledgers and reports are read instead, and of a run the reason why it is not Ready.

A hint that is missed or wrongly taken for old costs time until the next resync, not correctness.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from drivetrain.api.documents import JSON, Document, documents, labels_of, mapping, name_of, namespace_of, text, uid_of
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, OWN_KINDS, TRAINING_RUN, Kind, Ref
from drivetrain.api.names import OWNER_KIND_LABEL, OWNER_NAME_LABEL, PROJECT_LABEL, RUN_UID_LABEL

_OWN_BY_NAME = {kind.kind: kind for kind in OWN_KINDS}


@dataclass(slots=True)
class Owners:
    """What is known from the events seen so far."""

    _by_uid: dict[str, Ref] = field(default_factory=dict)
    _deployments: dict[Ref, set[Ref]] = field(default_factory=dict)
    """Project to the Deployments that roll out its versions."""
    _told: dict[Ref, bytes] = field(default_factory=dict)
    """What the readers of an object were woken for last."""
    _reconciled: dict[Ref, bytes] = field(default_factory=dict)
    """What the last reconcile of an object left behind."""

    def reconciled(self, ref: Ref, document: Document | None) -> None:
        """Remember one of our objects as its reconcile read or wrote it last; None: it does not exist."""
        if document is None:
            self._reconciled.pop(ref, None)
        else:
            self._reconciled[ref] = _digest(_content(document))

    def is_new(self, ref: Ref, document: Document) -> bool:
        """Return whether the last reconcile of one of our objects left behind something else."""
        return self._reconciled.get(ref) != _digest(_content(document))

    def listed(self, ref: Ref, document: Document) -> None:
        """Remember to whom one of our objects belongs, and not what it tells: who lists it wakes it."""
        self._remember(document, ref, deleted=False)
        self._readers(ref, document, deleted=False)

    def to_wake(self, kind: Kind, document: Document, *, deleted: bool = False) -> frozenset[Ref]:
        """Return the objects to reconcile because this one changed, and remember what it tells."""
        if kind in OWN_KINDS:
            self._remember(document, Ref(kind, namespace_of(document), name_of(document)), deleted=deleted)
            return self._own(kind, document, deleted=deleted)
        owner = self._owner(document)
        if owner is None:
            return frozenset()
        self._remember(document, owner, deleted=deleted)
        if kind != CONFIG_MAP:
            return frozenset((owner,))
        # The project reads the ledgers of its Deployment and its runs, and the Deployment's report; of a run's report
        # only the champion's, and becoming champion wakes it. The Deployment reads the ledgers of project and runs.
        name = labels_of(document).get(PROJECT_LABEL) or (owner.name if owner.kind == DRIVETRAIN_PROJECT else "")
        project, is_ledger = Ref(DRIVETRAIN_PROJECT, owner.namespace, name), name_of(document).endswith("-ledger")
        readers = {project} if name and (is_ledger or owner.kind == DEPLOYMENT) else set()
        return frozenset({owner} | readers | (self._deployments.get(project, set()) if is_ledger else set()))

    def _remember(self, document: Document, owner: Ref, *, deleted: bool) -> None:
        if deleted:
            self._by_uid.pop(uid_of(document), None)
        else:
            self._by_uid[uid_of(document)] = owner

    def _own(self, kind: Kind, document: Document, *, deleted: bool) -> frozenset[Ref]:
        ref = Ref(kind, namespace_of(document), name_of(document))
        readers = self._readers(ref, document, deleted=deleted)
        if deleted:
            self._told.pop(ref, None)
            self._reconciled.pop(ref, None)
            return readers | {ref}
        told = _digest(_read_by_others(kind, document))
        woken = readers if self._told.get(ref) != told else frozenset[Ref]()
        self._told[ref] = told
        return woken | {ref} if self.is_new(ref, document) else woken - {ref}

    def _readers(self, ref: Ref, document: Document, *, deleted: bool) -> frozenset[Ref]:
        kind = ref.kind
        if kind == DRIVETRAIN_PROJECT:
            return frozenset(self._deployments.get(ref, set()))
        name = text(document, "spec", "project") or text(
            document, "spec", "model", "name"
        )  # a model's is its project's
        if not name:
            return frozenset()
        project = Ref(DRIVETRAIN_PROJECT, ref.namespace, name)
        siblings = self._deployments.setdefault(project, set()) if kind == DEPLOYMENT else set()
        if kind == DEPLOYMENT and deleted:
            siblings.discard(ref)
        elif kind == DEPLOYMENT:
            siblings.add(ref)
        # Of several Deployments of one project the oldest serves it: when it goes, the others must know.
        return frozenset({project} | siblings)

    def _owner(self, document: Document) -> Ref | None:
        labels = labels_of(document)
        owner_kind = _OWN_BY_NAME.get(labels.get(OWNER_KIND_LABEL, ""))
        if owner_kind is not None and OWNER_NAME_LABEL in labels:
            return Ref(owner_kind, namespace_of(document), labels[OWNER_NAME_LABEL])
        uids = [labels.get(RUN_UID_LABEL, "")]
        uids += [text(each, "uid") for each in documents(document, "metadata", "ownerReferences")]
        return next((self._by_uid[uid] for uid in uids if uid in self._by_uid), None)


def _content(document: Document) -> dict[str, JSON]:
    """An object without its type, and without what changes with each write whatever is written."""
    metadata = mapping(document, "metadata")
    kept = {key: part for key, part in metadata.items() if key not in ("managedFields", "resourceVersion")}
    return {key: part for key, part in document.items() if key not in ("apiVersion", "kind")} | {"metadata": kept}


def _read_by_others(kind: Kind, document: Document) -> dict[str, JSON]:
    """What decisions about other objects read of this one."""
    content = {key: part for key, part in _content(document).items() if key != "status"}
    if kind == TRAINING_RUN:
        found = (each for each in documents(document, "status", "conditions") if text(each, "type") == "Ready")
        content["why"] = [[text(each, "reason"), text(each, "message")] for each in found]
    return content


def _digest(content: Mapping[str, JSON]) -> bytes:
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).digest()
