"""What both Dockerfiles say about their images, and in which order they make layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("operator/Dockerfile", "pipelines/Dockerfile")


@dataclass(frozen=True)
class Step:
    """One instruction."""

    name: str
    rest: str


def stages(dockerfile: str) -> Mapping[str, Sequence[Step]]:
    """The instructions of each stage; the last one, whose image is kept, is called `image`."""
    found: dict[str, list[Step]] = {}
    text = re.sub(r"^ *#.*\n", "", (ROOT / dockerfile).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    steps = [Step(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]
    for step in steps[1:]:  # the first one says what the base is
        if step.name == "FROM":
            _, _, stage = step.rest.partition(" AS ")
            found[stage or "image"] = []
        else:
            found[next(reversed(found))].append(step)
    return found


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_says_what_it_is_which_version_and_under_which_licence(dockerfile: str) -> None:
    image = stages(dockerfile)["image"]
    (label,) = [step.rest for step in image if step.name == "LABEL"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', label))
    chart = yaml.safe_load((ROOT / "charts" / "drivetrain" / "Chart.yaml").read_text())
    assert labels["title"]
    assert labels["description"]
    assert labels["licenses"] == "Apache-2.0"
    assert (labels["version"], labels["revision"]) == ("${VERSION}", "${REVISION}")
    assert Step("ARG", f"VERSION={chart['appVersion']}") in image


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_a_change_of_code_makes_the_last_layer_alone(dockerfile: str) -> None:
    found = stages(dockerfile)
    assert any("pip install" in step.rest and "--require-hashes" in step.rest for step in found["dependencies"])
    assert not any("pip install" in step.rest for step in (*found["sources"], *found["image"]))
    copied = {
        stage: [step.rest.split()[0] for step in steps if step.name in ("COPY", "ADD")]
        for stage, steps in found.items()
    }
    assert all(each.startswith("requirements/") for each in copied["dependencies"])
    assert copied["image"] == ["--from=dependencies", "--from=sources"]
    assert found["image"][-1].rest.startswith("--from=sources ")
