"""Which of our objects a change may matter to: wake-up hints, never truth.

Children say so by label. Objects that KubeRay and Kueue make for a child carry no label of ours, but name it as their
owner, so the uids of children seen are remembered. A hint that is missed costs time until the next resync, not
correctness.
"""

from dataclasses import dataclass, field

from drivetrain.api.documents import Document, documents, labels_of, name_of, namespace_of, text, uid_of
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, OWN_KINDS, Kind, Ref
from drivetrain.api.names import OWNER_KIND_LABEL, OWNER_NAME_LABEL, PROJECT_LABEL, RUN_UID_LABEL

_OWN_BY_NAME = {kind.kind: kind for kind in OWN_KINDS}


@dataclass(slots=True)
class Owners:
    """What is known from the events seen so far."""

    _by_uid: dict[str, Ref] = field(default_factory=dict)
    _deployments: dict[Ref, set[Ref]] = field(default_factory=dict)
    """Project to the Deployments that roll out its versions."""

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
        if kind == DRIVETRAIN_PROJECT:
            return frozenset({ref} | self._deployments.get(ref, set()))
        name = text(document, "spec", "project") or text(
            document, "spec", "model", "name"
        )  # a model's is its project's
        if not name:
            return frozenset((ref,))
        project = Ref(DRIVETRAIN_PROJECT, ref.namespace, name)
        siblings = self._deployments.setdefault(project, set()) if kind == DEPLOYMENT else set()
        if kind == DEPLOYMENT and deleted:
            siblings.discard(ref)
        elif kind == DEPLOYMENT:
            siblings.add(ref)
        # Of several Deployments of one project the oldest serves it: when it goes, the others must know.
        return frozenset({ref, project} | siblings)

    def _owner(self, document: Document) -> Ref | None:
        labels = labels_of(document)
        owner_kind = _OWN_BY_NAME.get(labels.get(OWNER_KIND_LABEL, ""))
        if owner_kind is not None and OWNER_NAME_LABEL in labels:
            return Ref(owner_kind, namespace_of(document), labels[OWNER_NAME_LABEL])
        uids = [labels.get(RUN_UID_LABEL, "")]
        uids += [text(each, "uid") for each in documents(document, "metadata", "ownerReferences")]
        return next((self._by_uid[uid] for uid in uids if uid in self._by_uid), None)
