"""A process that decides, tells what it answered, and waits to be killed. Arguments: root, baseline, stable."""

import asyncio
import os
import sys
from pathlib import Path

from drivetrain.serving.replica import Replica
from drivetrain.serving.settings import Settings
from tests.unit.serving.worlds import World, row


async def main(root: str, baseline: str, stable: str) -> None:
    settings = Settings.of(os.environ)
    world = World(Path(root))
    replica = Replica(settings, world.store, "killed")
    await replica.first_configuration(world.config(stable, baseline))
    for batch in range(3):
        answer = replica.decide([row(10 * batch + number) for number in range(5)])
        sys.stdout.write(answer.decode() + "\n")
        sys.stdout.flush()
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
