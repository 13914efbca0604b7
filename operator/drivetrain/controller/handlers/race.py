"""Tasks that only make sense together: when one ends, all end."""

import asyncio
from collections.abc import Coroutine


async def until_one_ends(*coroutines: Coroutine[None, None, None]) -> None:
    """Run all at once until the first ends, then cancel the others; raise what the first raised.

    Unlike a TaskGroup it does not wait for the rest, and raises the error itself rather than a group of one.
    """
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
