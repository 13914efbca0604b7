"""The submitters of running jobs as local processes: the agent submits, they follow and leave the dossier."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping

from drivetrain.api.names import SPEC_ENV, SUBMIT_COMMAND

LOG = logging.getLogger("drivetrain.local.agent")
_NICENESS = 10
"""A follower waits most of its life: the driver that starts at the same time goes first. In the end its job waits."""


class Followers:
    """One process a submission, as long as the job lasts."""

    def __init__(self, environment: Mapping[str, str], dashboard: str) -> None:
        """`environment` is that of everything on the one Ray instance."""
        self._shared = {**environment, "RAY_DASHBOARD_ADDRESS": dashboard}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._started: set[str] = set()

    async def follow(self, submission: str, entrypoint: str, variables: Mapping[str, str]) -> None:
        """Start a follower of this job unless there was one; jobs that are not of a run have none."""
        if submission in self._started or SPEC_ENV not in variables:
            return
        self._started.add(submission)
        try:
            spec = os.open(variables[SPEC_ENV], os.O_RDONLY)
        except FileNotFoundError:
            LOG.warning("nobody follows %s: its head is gone already", submission)
            return
        # Open, since the head's folder may be gone before the process has started.
        env = {
            **os.environ,
            **self._shared,
            **variables,
            "RAY_JOB_SUBMISSION_ID": submission,
            SPEC_ENV: f"/dev/fd/{spec}",
        }
        command = (sys.executable, *SUBMIT_COMMAND[1:], entrypoint)
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env=env, stdout=asyncio.subprocess.DEVNULL, pass_fds=(spec,)
            )
        finally:
            os.close(spec)
        with contextlib.suppress(ProcessLookupError):  # it ended at once, and says why on standard error
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        self._running[submission] = process
        LOG.info("following %s", submission)

    def at_work(self) -> frozenset[str]:
        """Return the jobs whose followers have not ended."""
        self._running = {name: process for name, process in self._running.items() if process.returncode is None}
        return frozenset(self._running)

    async def close(self) -> None:
        """End them all; the next agent follows what still runs."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
