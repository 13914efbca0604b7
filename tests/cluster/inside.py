"""Runs inside an image under test, as `python -c SOURCE KIND`, and prints what it found there as one line of JSON."""

import importlib
import importlib.util
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from typing import Any


def everywhere() -> dict[str, Any]:
    """Programs that must be absent, who runs this, and where that user can write."""
    return {
        "programs": [name for name in ("wget", "git", "ps", "pgrep") if shutil.which(name)],
        "user": [os.getuid(), os.getgid()],
        "writable": [path for path in ("/", "/opt/drivetrain", "/tmp", "/dev/shm", os.getcwd()) if writable(path)],
    }


def writable(path: str) -> bool:
    """Whether a file can be made there; asking for the permission alone would not see a read-only mount."""
    try:
        with open(os.path.join(path, "probe"), "w"):
            return True
    except OSError:
        return False


def imported(*packages: str) -> int:
    """Imports every module below these packages, which finds whatever an image lacks; returns how many there are."""
    names = []
    for package in packages:
        module = importlib.import_module(f"drivetrain.{package}")
        names += [each.name for each in pkgutil.walk_packages(module.__path__, f"{module.__name__}.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return len(names)


def present(*names: str) -> list[str]:
    """Those of these modules that could be imported."""
    return [name for name in names if importlib.util.find_spec(name)]


def operator() -> dict[str, Any]:
    """The operator's modules, nothing of the others, and a program that starts."""
    shown = subprocess.run(
        [sys.executable, "-m", "drivetrain.controller.main", "--help"], capture_output=True, check=False
    )
    return {
        "modules": imported("api", "controller"),
        "present": present("ray", "kubernetes", "typer", "numpy", *(f"drivetrain.{one}" for one in ("cli", "local"))),
        "help": shown.returncode,
    }


def ray() -> dict[str, Any]:
    """All modules of line and endpoint, a local MLflow record, and a task on Ray that needs LightGBM."""
    import ray

    from drivetrain.api import image
    from drivetrain.pipelines.tracking import Opening, Tracking

    found: dict[str, Any] = {
        "modules": imported("api", "evidence", "levers", "store", "pipelines", "serving"),
        "present": present("kopf", "kubernetes", "drivetrain.controller"),
        "versions": image.found(),
    }
    with Tracking(f"sqlite:///{os.getcwd()}/mlflow.db") as tracking:
        tracking.open(Opening("team.shop", "shop-1", "uid"), lambda run: found.update(mlflow_run=run))
        tracking.opened()

    def fitted() -> float:
        import lightgbm
        import numpy as np

        rows = np.arange(400.0).reshape(-1, 1)
        model = lightgbm.LGBMRegressor(n_estimators=50, verbose=-1, n_jobs=1).fit(rows, rows[:, 0])
        return float(model.predict(np.array([[399.0]]))[0])

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80_000_000)
    found["fitted"] = ray.get(ray.remote(fitted).remote())
    ray.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(everywhere() | {"operator": operator, "ray": ray}[sys.argv[1]]()))  # noqa: T201 - read from the Pod's log
