"""A Serve application that answers with the revision of its cluster."""

import os
from typing import Any

from ray import serve


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
class Hello:
    """One replica."""

    async def __call__(self, request: Any) -> str:
        """The revision."""
        return os.environ["REVISION"]


app = Hello.bind()  # type: ignore[attr-defined]  # mypy sees the plain class
