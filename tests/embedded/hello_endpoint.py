"""A Serve application that says its word, its cluster and the path that it was asked for."""

import os

from ray import serve
from starlette.requests import Request


@serve.deployment
class Hello:
    def __init__(self) -> None:
        self.word = ""

    def reconfigure(self, config: dict[str, str]) -> None:
        self.word = config["word"]

    async def __call__(self, request: Request) -> dict[str, str]:
        return {"word": self.word, "cluster": os.environ["RAY_CLUSTER_NAME"], "path": request.url.path}


app = Hello.bind()  # type: ignore[attr-defined]  # Ray types its decorator as returning the class
