"""The agent's loop: one pass observes everything, decides for every object, and applies."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from drivetrain.api.canonical import digest
from drivetrain.api.documents import Document, name_of, namespace_of, text, uid_of
from drivetrain.api.errors import ClusterError, ComponentError, ConflictError, NotFoundError
from drivetrain.api.kinds import CONFIG_MAP, POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, SECRET, kind_of
from drivetrain.controller.cluster.clock import now
from drivetrain.controller.cluster.port import ABSENT, Cluster, Precondition
from drivetrain.local.agent import clusters, jobs, pods, services
from drivetrain.local.agent.containers import ContainerError, MountError, resolve
from drivetrain.local.agent.effects import Apply, Delete, Effect, Hold, RemovePod, SetStatus, Stop, Submit, Tell
from drivetrain.local.agent.facts import NODE, Place, RayFacts, World, deleting, where
from drivetrain.local.agent.followers import Followers
from drivetrain.local.agent.mirror import Mirror
from drivetrain.local.agent.node_api import NodeApi
from drivetrain.local.agent.ray_api import RayApi, RefusedError
from drivetrain.local.agent.services import Wanted
from drivetrain.local.agent.volumes import Token, discard, drop, put, write

LOG = logging.getLogger("drivetrain.local.agent")
KINDS = (RAY_JOB, RAY_SERVICE, RAY_CLUSTER, POD, SECRET, CONFIG_MAP)
PASS_SECONDS = 1.0
"""Ray has no watch, so it is asked this often while anything runs on it."""
IDLE_SECONDS = 5.0
ENVIRONMENT_FILE = "environment.json"
RENEW_AFTER = 0.8
"""A token is renewed after this part of its life, as the kubelet does."""


@dataclass(frozen=True, slots=True)
class _Issued:
    """A token that lies in a pod's folder, and when to replace it."""

    renew_at: datetime


class Agent:
    """Carries out RayJobs and RayServices; what it remembers between passes only saves work."""

    def __init__(
        self,
        cluster: Cluster,
        ray: RayApi,
        node: NodeApi,
        followers: Followers,
        *,
        place: Place,
        token: str,
        heartbeat: Path,
    ) -> None:
        self._cluster = cluster
        self._mirror = Mirror(cluster, KINDS)
        self._ray = ray
        self._node = node
        self._place = place
        self._token = token
        self._heartbeat = heartbeat
        self._placed: dict[str, tuple[pods.Mounted, dict[str, _Issued]]] = {}
        self._refused_jobs: dict[str, str] = {}
        self._refused_services: dict[tuple[str, str], tuple[str, str]] = {}
        self._accepted: dict[tuple[str, str], Wanted] = {}
        self._deployed = ""
        self._deploying: asyncio.Task[None] | None = None
        self._told: set[tuple[str, str, str]] = set()
        self._environments: dict[str, Mapping[str, str]] = {}
        self._followers = followers

    async def run(self) -> None:
        """Pass after pass, woken by changes, until cancelled."""
        following = asyncio.create_task(self._mirror.run())
        try:
            while True:
                self._mirror.changed.clear()
                if self._mirror.complete:
                    busy = await self._pass()
                    self._heartbeat.touch()
                else:
                    busy = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._mirror.changed.wait(), PASS_SECONDS if busy else IDLE_SECONDS)
        finally:
            following.cancel()
            if self._deploying is not None:
                self._deploying.cancel()
            await self._followers.close()

    async def _pass(self) -> bool:
        world = await self._observe()
        for job in world.all(RAY_JOB):
            if (found := jobs.to_follow(job, world)) is not None:
                await self._followers.follow(found[0], text(job, "spec", "entrypoint"), found[1])
        world = replace(world, followed=self._followers.at_work())
        for pod in world.all(POD):
            if text(pod, "spec", "nodeName") == NODE:
                placed = await self._place_volumes(pod, world)
                self._start(pod, world, placed)
                await self._apply(pods.decide(pod, world, placed), world)
        for cluster in world.all(RAY_CLUSTER):
            await self._apply(clusters.decide(cluster, world, self._token), world)
        for job in world.all(RAY_JOB):
            refused = self._refused_jobs.get(text(job, "status", "jobId"), "")
            await self._apply(jobs.decide(job, world, _suffix(), refused), world)
        await self._deploy(world)
        for service in world.all(RAY_SERVICE):
            refused = self._refused_services.get(where(service), ("", ""))[1]
            await self._apply(services.decide(service, world, _suffix(), refused), world)
        self._forget(world)
        return bool(world.all(RAY_CLUSTER) or world.all(POD))

    async def _observe(self) -> World:
        objects = self._mirror.objects()
        before = World(now(), objects, None, self._place)
        ids = {jobs.active_submission(job) for job in before.all(RAY_JOB)}
        ids |= {pods.submission_of(pod) for pod in before.all(POD) if deleting(pod)}
        try:
            known = {submission: await self._ray.job(submission) for submission in sorted(ids - {""})}
            ray = RayFacts(known, await self._ray.applications())
        except ComponentError as error:
            LOG.warning("%s", error)
            ray = None
        return World(now(), objects, ray, self._place, self._environments)

    def _start(self, pod: Document, world: World, placed: pods.Mounted | MountError) -> None:
        """Fix the variables of a container whose volumes are there, for as long as its pod lives."""
        uid = uid_of(pod)
        file = self._place.pods / uid / ENVIRONMENT_FILE
        if uid in self._environments or deleting(pod):
            return
        if file.is_file():  # it was started by an agent before this one
            self._environments[uid] = json.loads(file.read_text())
        elif world.ray is not None and isinstance(placed, pods.Mounted):
            with contextlib.suppress(ContainerError):  # pods.decide tells it
                variables = resolve(pod, world)
                write(file, json.dumps(variables).encode())
                self._environments[uid] = variables

    async def _place_volumes(self, pod: Document, world: World) -> pods.Mounted | MountError:
        placed = pods.mounted(pod, world)
        if isinstance(placed, MountError) or deleting(pod):
            return placed
        uid = uid_of(pod)
        before, issued = self._placed.get(uid, (None, {}))
        folder = self._place.pods / uid
        for volume in placed.volumes:
            root = folder / volume.name
            if before is None or before.volumes != placed.volumes:
                root.mkdir(parents=True, exist_ok=True)
                if put(root, volume.files):
                    LOG.info("volume %s of pod %s/%s is in place", volume.name, namespace_of(pod), name_of(pod))
                if not volume.scratch:
                    drop(root, [*volume.files, *(token.path for token in volume.tokens)])
            for token in volume.tokens:
                try:
                    await self._issue(pod, root, token, issued, world.now)
                except ComponentError as error:
                    return MountError(volume.name, f'MountVolume.SetUp failed for volume "{volume.name}" : {error}')
        self._placed[uid] = (placed, issued)
        return placed

    async def _issue(
        self, pod: Document, root: Path, token: Token, issued: dict[str, _Issued], moment: datetime
    ) -> None:
        path = root / token.path
        known = issued.get(str(path))
        if known is not None and moment < known.renew_at:
            return
        content, expires = await self._node.token(pod, token)
        write(path, content.encode())
        issued[str(path)] = _Issued(moment + (expires - moment) * RENEW_AFTER)

    async def _deploy(self, world: World) -> None:
        """Give Ray Serve what all RayServices want; one that it refuses keeps what it had before."""
        if world.ray is None:
            return
        wanted = services.wanted(world)
        present = world.ray.applications.keys()
        current = [
            self._accepted.get(entry.service) or services.deployed(entry.service, world)
            if entry.fault or self._is_refused(entry)
            else entry
            for entry in wanted
        ]
        config = services.serve_config(tuple(current), world)
        names = {text(app, "name") for entry in current for app in entry.applications}
        signature = digest(config)
        settled = (signature == self._deployed and names <= present) or not (names or present)
        if not settled and (self._deploying is None or self._deploying.done()):
            # the first one starts Serve itself, which takes Ray many seconds in which jobs must not wait
            self._deploying = asyncio.create_task(self._put(config, current, wanted, world))

    async def _put(self, config: Document, current: list[Wanted], wanted: tuple[Wanted, ...], world: World) -> None:
        names = sorted(text(app, "name") for entry in current for app in entry.applications)
        try:
            await self._ray.deploy(config)
        except RefusedError:
            await self._deploy_one_by_one(wanted, world)
        except ComponentError as error:
            LOG.warning("%s", error)
        else:
            LOG.info("Ray Serve runs %s", ", ".join(names) or "nothing")
            self._deployed = digest(config)
            self._accepted = {entry.service: entry for entry in current}
        self._mirror.changed.set()

    async def _deploy_one_by_one(self, wanted: Iterable[Wanted], world: World) -> None:
        """Find which services Ray Serve refuses, by adding each to what it took before."""
        for entry in wanted:
            trial = {**self._accepted, entry.service: entry}
            try:
                await self._ray.deploy(services.serve_config(tuple(trial.values()), world))
            except RefusedError as refusal:
                LOG.warning("Ray Serve refuses %s/%s: %s", *entry.service, refusal.message)
                self._refused_services[entry.service] = (digest(list(entry.applications)), refusal.message)
            except ComponentError as error:
                LOG.warning("%s", error)
                return
            else:
                self._accepted = trial

    def _is_refused(self, entry: Wanted) -> bool:
        return self._refused_services.get(entry.service, ("", ""))[0] == digest(list(entry.applications))

    async def _apply(self, effects: Iterable[Effect], world: World) -> None:
        for effect in effects:
            try:
                await self._carry_out(effect, world)
            except (ConflictError, NotFoundError):
                return  # the object changed since it was read: the next pass decides again
            except (ClusterError, ComponentError) as error:
                LOG.warning("%s: %s", type(effect).__name__, error)
                return

    async def _carry_out(self, effect: Effect, world: World) -> None:
        match effect:
            case Apply(document, manager, create_only):
                expected = ABSENT if create_only else None
                stored = await self._cluster.apply(document, field_manager=manager, expected=expected)
                self._mirror.remember(kind_of(document), stored)
            case Hold(document, finalizers, annotations):
                ours: Document = {"finalizers": list(finalizers), "annotations": dict(annotations)}
                held = _identity(document, {key: entry for key, entry in ours.items() if entry})
                await self._cluster.apply(held, field_manager=clusters.MANAGER, expected=Precondition.of(document))
            case SetStatus(document, status):
                stored = await self._cluster.apply_status(
                    {**document, "status": status}, field_manager=clusters.MANAGER, expected=Precondition.of(document)
                )
                self._mirror.remember(kind_of(document), stored)
            case Delete(ref, uid):
                await self._cluster.delete(ref, expected=Precondition(uid=uid))
            case RemovePod(ref, uid):
                await self._node.remove(ref, uid)
                discard(self._place.pods / uid)
            case Submit(submission, entrypoint, runtime_env, metadata):
                LOG.info("submitting %s: %s", submission, entrypoint)
                try:
                    await self._ray.submit(submission, entrypoint, runtime_env, metadata)
                except RefusedError as refusal:
                    self._refused_jobs[submission] = refusal.message
                self._mirror.changed.set()
            case Stop(submission):
                LOG.info("stopping %s", submission)
                await self._ray.stop(submission)
            case Tell():
                await self._tell(effect, world)

    async def _tell(self, event: Tell, world: World) -> None:
        key = (uid_of(event.about), event.reason, event.message)
        if key in self._told:
            return
        namespace, name = where(event.about)
        moment = world.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        document: Document = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{digest(list(key))[:16]}", "namespace": namespace},
            "eventTime": moment,
            "type": event.type,
            "reason": event.reason,
            "note": event.message[:1024],
            "action": "Starting",
            "reportingController": clusters.MANAGER,
            "reportingInstance": NODE,
            "regarding": {
                "apiVersion": text(event.about, "apiVersion"),
                "kind": text(event.about, "kind"),
                "namespace": namespace,
                "name": name,
                "uid": uid_of(event.about),
            },
        }
        await self._cluster.create_event(document)
        self._told.add(key)

    def _forget(self, world: World) -> None:
        live = {uid_of(pod) for pod in world.all(POD)}
        for uid in self._placed.keys() - live:
            del self._placed[uid]
            self._environments.pop(uid, None)
            discard(self._place.pods / uid)
        known = {where(service) for service in world.all(RAY_SERVICE)}
        for service in (self._refused_services.keys() | self._accepted.keys()) - known:
            self._refused_services.pop(service, None)
            self._accepted.pop(service, None)


def _identity(document: Document, metadata: Document) -> Document:
    namespace, name = where(document)
    return {
        "apiVersion": text(document, "apiVersion"),
        "kind": text(document, "kind"),
        "metadata": {"name": name, "namespace": namespace, **metadata},
    }


def _suffix() -> str:
    """Five letters and digits without vowels, as Kubernetes draws them."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
