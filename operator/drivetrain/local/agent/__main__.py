"""`python -m drivetrain.local.agent STATE_DIR`: run the agent of one environment until SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

import aiohttp

from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import connect
from drivetrain.local.agent.facts import Place
from drivetrain.local.agent.followers import Followers
from drivetrain.local.agent.loop import Agent
from drivetrain.local.agent.node_api import NodeApi
from drivetrain.local.agent.ray_api import RayApi
from drivetrain.local.components import ray_environment
from drivetrain.local.settings import Settings
from drivetrain.local.statedir import StateDir


async def run(state: StateDir) -> None:
    """Connect to API server and Ray, and carry out what is declared."""
    settings = Settings.model_validate_json(state.settings.read_text())
    place = Place(
        dashboard=settings.ray_url,
        serve_url=settings.serve_url,
        serve_port=settings.ports["serve"],
        serve_grpc_port=settings.ports["serve-grpc"],
        api_port=settings.ports["api"],
        pods=state.pods,
    )
    access = from_kubeconfig(state.kubeconfig)
    async with connect(access, lambda *_: None) as cluster, aiohttp.ClientSession() as session:
        ray = RayApi(session, settings.ray_url, settings.ray_token)
        agent = Agent(
            cluster,
            ray,
            NodeApi(access, session),
            Followers(ray_environment(state, settings), settings.ray_url),
            place=place,
            token=settings.ray_token,
            heartbeat=state.heartbeat,
        )
        task = asyncio.create_task(agent.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(run(StateDir(Path(sys.argv[1]))))
