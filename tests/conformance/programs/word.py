"""A Serve application that answers with the word that its configuration gives it."""

from typing import Any

from ray import serve


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
class Word:
    """One replica."""

    def __init__(self) -> None:
        self._word = ""

    def reconfigure(self, config: dict[str, str]) -> None:
        """Take another word over in place."""
        self._word = config["word"]

    async def __call__(self, request: Any) -> str:
        """The word."""
        return self._word


app = Word.bind()  # type: ignore[attr-defined]  # mypy sees the plain class
