"""What the demo leaves behind: report.json with every number, report.html with plots."""

import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drivetrain.local.environment import Addresses
from drivetrain.local.statedir import StateDir
from examples.orange_juice.power import LIMITS
from examples.orange_juice.stage import PROJECT, seeds
from examples.orange_juice.story import Result
from examples.orange_juice.traffic import Record
from examples.orange_juice.view import Scene

mpl.rcParams["svg.hashsalt"] = "drivetrain"
_SIZE = (9.0, 3.2)


@dataclass(frozen=True, slots=True)
class Told:
    """What a demo came to. `surface` is what the last version expects of each action for one visit, USD."""

    result: Result
    record: Record
    scenes: list[Scene]
    surface: list[Mapping[str, float]]
    addresses: Addresses


def write_page(folder: Path, told: Told) -> Path:
    """Writes report.html into `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(_page(told), encoding="utf-8")
    return path


def write_numbers(folder: Path, told: Told) -> Path:
    """Writes report.json into `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.json"
    path.write_text(json.dumps(_finite(_numbers(told)), indent=2, default=str, allow_nan=False), encoding="utf-8")
    return path


def next_commands(state: StateDir, program: str, *, kept: bool) -> tuple[str, ...]:
    """Three commands to go on with; `program` is how drivetrain is called, `kept` says that everything still runs."""
    tree = f"{program} status {PROJECT} --kubeconfig {state.kubeconfig}"
    table = f"kubectl --kubeconfig {state.kubeconfig} get dtp,dtr,dtd"
    if kept:
        return tree, table, f"{program} down --state {state.root}"
    return f"{program} up --state {state.root}", tree, table


def summary(told: Told, paths: tuple[Path, Path], following: Sequence[str]) -> tuple[str, ...]:
    """The last lines that the demo prints."""
    result, record = told.result, told.record
    lines = [
        f"Act {act.number} {'passed' if act.passed else 'FAILED'} in {act.seconds:.0f} s: {act.title}"
        for act in result.acts
    ]
    lines += [f"True share reached: {share:.0%} by {name}" for name, share in result.shares.items()]
    lines.append(
        f"{sum(batch.decisions for batch in record.batches):,} decisions, {record.failed_requests} failed requests, "
        f"{record.retried_requests} broken connections"
    )
    lines.append(
        f"{result.durations['components ready to report']:.0f} s from all components ready to the report; "
        f"before that {result.durations['all components ready']:.0f} s until they were"
    )
    lines.append(f"Report {paths[0]} and {paths[1]}")
    lines += [f"{name} {address}" for name, address in _addresses(told.addresses).items()]
    lines += [f"{'Next:' if not number else '     '} {command}" for number, command in enumerate(following)]
    return tuple(lines)


def _addresses(addresses: Addresses) -> dict[str, str]:
    return {"API": addresses.api, "MLflow": addresses.mlflow, "Ray dashboard": addresses.ray_dashboard}


def _numbers(told: Told) -> Mapping[str, object]:
    result, record, scenes = told.result, told.record, told.scenes
    last = scenes[-1] if scenes else None
    rejected = last.deployment.status.rejected if last and last.deployment else ()
    return {
        "passed": result.passed,
        "acts": [asdict(act) for act in result.acts],
        "durationsSeconds": result.durations,
        "trueShares": result.shares,
        "market": {
            "synthetic": True,
            "parameters": result.parameters,
            "gapsUsdPerVisit": result.gaps,
            "limits": LIMITS,
        },
        "seeds": seeds(),
        "requests": {"failed": record.failed_requests, "brokenConnections": record.retried_requests},
        "versions": {
            f"{version or 'today'} (market {epoch})": {**asdict(visits)}
            for (version, epoch), visits in sorted(record.recommended.items())
        },
        "rejected": [each.model_dump(mode="json", by_alias=True) for each in rejected],
        "rollouts": [shown for scene in scenes if (shown := _rollout(scene))],
        "runs": [run.status.model_dump(mode="json", by_alias=True) for run in (last.runs if last else ())],
        "events": [{"at": at, "event": event} for at, event in _events(scenes)],
        "batches": [asdict(batch) for batch in record.batches],
        "valueOverLevers": told.surface,
        "addresses": _addresses(told.addresses),
    }


def _finite(found: object) -> object:
    """The same without the numbers that JSON does not know."""
    if isinstance(found, Mapping):
        return {name: _finite(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _rollout(scene: Scene) -> Mapping[str, object]:
    """The open rollout at one moment; empty when there was none."""
    status = scene.deployment.status if scene.deployment else None
    if status is None or status.candidate is None:
        return {}
    intervals = status.analysis.intervals if status.analysis else ()
    return {
        "at": scene.at,
        "candidate": status.candidate.version,
        "weight": status.weight,
        "intervals": [interval.model_dump() for interval in intervals],
    }


def _page(told: Told) -> str:
    result, record, scenes = told.result, told.record, told.scenes
    acts = "".join(
        f"<tr><td>{act.number}</td><td>{html.escape(act.title)}</td>"
        f"<td>{'passed' if act.passed else '<b>failed</b>'}</td><td>{act.seconds:.0f} s</td><td>"
        + "<br>".join(html.escape(f"{name} {fact}") for name, fact in act.facts.items())
        + "</td></tr>"
        for act in result.acts
    )
    shares = "".join(f"<li>{share:.0%}: {html.escape(name)}</li>" for name, share in result.shares.items())
    durations = "".join(f"<li>{seconds:.0f} s: {html.escape(name)}</li>" for name, seconds in result.durations.items())
    addresses = "".join(f"<li>{name} {html.escape(at)}</li>" for name, at in _addresses(told.addresses).items())
    market = html.escape(", ".join(f"{name} {value:g}" for name, value in result.parameters.items()))
    drawn = html.escape(", ".join(f"{name} {seed}" for name, seed in seeds().items()))
    plots = "".join(
        f"<h2>{title}</h2><p>{note}</p>{_svg(figure)}"
        for title, note, figure in (
            (
                "KPI over time",
                "Realised margin per visit; grey: what shelf prices would have earned.",
                _kpi(record, scenes),
            ),
            ("Canary evidence", "Candidate minus stable, USD a visit, with its confidence sequence.", _canary(scenes)),
            ("Calibration", "Realised minus promised margin per visit, over time.", _calibration(record, scenes)),
            (
                "Promised and realised",
                "Realised margin by promised margin, in tenths of the decisions.",
                _promises(record),
            ),
            ("Value over the levers", "What the stable version expects of one visit, USD.", _surface(told.surface)),
        )
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Drivetrain: orange juice</title>"
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem .6rem;vertical-align:top;border-top:1px solid #ddd}svg{max-width:100%;height:auto}</style>"
        f"<h1>Orange juice: {'all acts passed' if result.passed else 'an act failed'}</h1>"
        f"<p>Contexts are real store visits. The customers are <b>synthetic</b> ({market}). Seeds: {drawn}.</p>"
        f"<table>{acts}</table><h2>True shares of the oracles' gaps</h2><ul>{shares}</ul>{plots}"
        f"<h2>Durations</h2><ul>{durations}</ul><h2>Addresses</h2><ul>{addresses}</ul></html>"
    )


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]


def _axes(height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _kpi(record: Record, scenes: list[Scene]) -> Figure:
    figure, axes = _axes()
    _timeline(axes, record, scenes, {"realised": "realised", "shelf": "shelf prices"})
    if record.batches:
        axes.legend(frameon=False, loc="lower left")
    axes.set_ylabel("USD a visit")
    return figure


def _calibration(record: Record, scenes: list[Scene]) -> Figure:
    figure, axes = _axes()
    _timeline(axes, record, scenes, {"surprise": "realised minus promised"})
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("USD a visit")
    return figure


def _timeline(axes: Axes, record: Record, scenes: list[Scene], series: Mapping[str, str]) -> None:
    """Draws fields of the batches over time, averaged over a hundredth of it, with the loop's events."""
    axes.set_xlabel("seconds of traffic")
    if not record.batches:
        return
    start = record.batches[0].at
    at = np.array([batch.at - start for batch in record.batches])
    width = max(1, len(at) // 100)
    kept = len(at) // width * width
    for color, (name, label) in zip(("#1f77b4", "#999999"), series.items(), strict=False):
        values = np.array([getattr(batch, name) for batch in record.batches])[:kept].reshape(-1, width).mean(axis=1)
        axes.plot(at[:kept].reshape(-1, width).mean(axis=1), values, color=color, label=label)
    for moment, event in _events(scenes):
        axes.axvline(moment - start, color="#cc4444", linewidth=0.8)
        place = (moment - start, 0.98)
        axes.annotate(event, place, xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=7)


def _events(scenes: list[Scene]) -> list[tuple[float, str]]:
    events, stable, candidate = [], None, None
    for scene in scenes:
        if scene.deployment is None:
            continue
        status = scene.deployment.status
        now_stable = status.stable.version if status.stable else None
        now_candidate = status.candidate.version if status.candidate else None
        if now_stable != stable:
            events.append((scene.at, f"version {now_stable} promoted"))
        elif candidate and not now_candidate:
            events.append((scene.at, f"version {candidate} rejected"))
        elif now_candidate and now_candidate != candidate:
            events.append((scene.at, f"version {now_candidate} enters"))
        stable, candidate = now_stable, now_candidate
    return events


def _canary(scenes: list[Scene]) -> Figure:
    figure, axes = _axes()
    rollouts: dict[str, list[tuple[int, float, float, float]]] = {}
    for scene in scenes:
        status = scene.deployment.status if scene.deployment else None
        if status and status.candidate and status.candidate.version and status.analysis and status.analysis.intervals:
            kpi = status.analysis.intervals[0]
            seen = status.analysis.outcomes_stable + status.analysis.outcomes_candidate
            rollouts.setdefault(status.candidate.version, []).append((seen, kpi.estimate, kpi.lower, kpi.upper))
    for index, (version, points) in enumerate(rollouts.items()):
        seen, estimate, lower, upper = np.array(points).T
        color = f"C{index}"
        axes.plot(seen, estimate, color=color, label=f"version {version}")
        axes.fill_between(seen, lower, upper, color=color, alpha=0.15)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-0.3, 0.3)
    axes.set_xlabel("matured outcomes of the rollout")
    axes.set_ylabel("USD a visit")
    if rollouts:
        axes.legend(frameon=False)
    return figure


def _promises(record: Record) -> Figure:
    figure, axes = _axes()
    if record.promised_and_realised:
        promised, realised = np.array(record.promised_and_realised).T
        order = np.argsort(promised)
        tenths = [part for part in np.array_split(order, 10) if len(part)]
        axes.plot([promised[part].mean() for part in tenths], [realised[part].mean() for part in tenths], "o-")
        low, high = float(promised.min()), float(promised.max())
        axes.plot([low, high], [low, high], color="#999999", linewidth=0.8)
    axes.set_xlabel("promised, USD a visit")
    axes.set_ylabel("realised, USD a visit")
    return figure


def _surface(surface: list[Mapping[str, float]]) -> Figure:
    figure, axes = _axes(3.6)
    if surface:
        prices = sorted({point["price"] for point in surface})
        discounts = sorted({point["discount"] for point in surface})
        values = np.array([point["value"] for point in surface]).reshape(len(prices), len(discounts))
        drawn = axes.imshow(values.T, origin="lower", aspect="auto", cmap="viridis")
        axes.set_xticks(range(len(prices)), [f"{price:.2f}" for price in prices])
        axes.set_yticks(range(len(discounts)), [f"{discount:.1f}" for discount in discounts])
        figure.colorbar(drawn, label="USD")
    axes.set_xlabel("price")
    axes.set_ylabel("discount")
    return figure
