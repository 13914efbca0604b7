"""What the demo leaves behind: report.json with every number, report.html with plots."""

import html
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drivetrain.local.environment import Addresses
from examples.orange_juice.stage import PROJECT, SEED
from examples.orange_juice.story import Result
from examples.orange_juice.traffic import Record
from examples.orange_juice.view import Scene

mpl.rcParams["svg.hashsalt"] = "drivetrain"
_SIZE = (9.0, 3.2)


def write(
    folder: Path, result: Result, record: Record, scenes: list[Scene], surface: list[Mapping[str, float]]
) -> tuple[Path, Path]:
    """Writes report.json and report.html into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, page = folder / "report.json", folder / "report.html"
    numbers.write_text(json.dumps(_numbers(result, record, scenes), indent=2, default=str), encoding="utf-8")
    page.write_text(_page(result, record, scenes, surface), encoding="utf-8")
    return numbers, page


def summary(result: Result, record: Record, addresses: Addresses, paths: tuple[Path, Path]) -> tuple[str, ...]:
    """The last lines that the demo prints."""
    lines = [
        f"Act {act.number} {'passed' if act.passed else 'FAILED'} in {act.seconds:.0f} s: {act.title}"
        for act in result.acts
    ]
    lines += [f"True share reached: {share:.0%} {name}" for name, share in result.shares.items()]
    lines.append(
        f"{sum(batch.decisions for batch in record.batches):,} decisions, {record.failed_requests} failed requests, "
        f"{record.retried_requests} retried; story {result.durations['story']:.0f} s"
    )
    lines += [f"Report {paths[1]} and {paths[0]}"]
    lines += [f"API {addresses.api}  MLflow {addresses.mlflow}  Ray {addresses.ray_dashboard}"]
    lines += [
        "Next: export KUBECONFIG=" + str(addresses.kubeconfig),
        f"      kubectl get dtp,dtr,dtd && kubectl describe dtp {PROJECT}",
        "      drivetrain validate examples/orange_juice/project.yaml",
    ]
    return tuple(lines)


def _numbers(result: Result, record: Record, scenes: list[Scene]) -> Mapping[str, object]:
    return {
        "passed": result.passed,
        "acts": [asdict(act) for act in result.acts],
        "durationsSeconds": result.durations,
        "trueShares": result.shares,
        "market": {"synthetic": True, "seed": SEED, **result.parameters},
        "requests": {"failed": record.failed_requests, "retried": record.retried_requests},
        "versions": {
            f"{version or 'today'} (market {epoch})": {**asdict(visits)}
            for (version, epoch), visits in sorted(record.recommended.items())
        },
        "rollouts": [shown for scene in scenes if (shown := _rollout(scene))],
        "runs": [run.status.model_dump(mode="json", by_alias=True) for run in (scenes[-1].runs if scenes else ())],
    }


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


def _page(result: Result, record: Record, scenes: list[Scene], surface: list[Mapping[str, float]]) -> str:
    acts = "".join(
        f"<tr><td>{act.number}</td><td>{html.escape(act.title)}</td>"
        f"<td>{'passed' if act.passed else '<b>failed</b>'}</td><td>{act.seconds:.0f} s</td><td>"
        + "<br>".join(html.escape(f"{name} {fact}") for name, fact in act.facts.items())
        + "</td></tr>"
        for act in result.acts
    )
    shares = "".join(f"<li>{share:.0%}: {html.escape(name)}</li>" for name, share in result.shares.items())
    market = html.escape(", ".join(f"{name} {value:g}" for name, value in result.parameters.items()))
    plots = "".join(
        f"<h2>{title}</h2><p>{note}</p>{_svg(figure)}"
        for title, note, figure in (
            (
                "KPI over time",
                "Realised margin per visit; grey: what shelf prices would have earned.",
                _kpi(record, scenes),
            ),
            ("Canary evidence", "Candidate minus stable, USD a visit, with its confidence sequence.", _canary(scenes)),
            (
                "Promised and realised",
                "Realised margin by promised margin, in tenths of the decisions.",
                _promises(record),
            ),
            ("Value over the levers", "What the stable version expects of one visit, USD.", _surface(surface)),
        )
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Drivetrain: orange juice</title>"
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem .6rem;vertical-align:top;border-top:1px solid #ddd}svg{max-width:100%;height:auto}</style>"
        f"<h1>Orange juice: {'all acts passed' if result.passed else 'an act failed'}</h1>"
        f"<p>Contexts are real store visits. The customers are <b>synthetic</b> (seed {SEED}; {market}).</p>"
        f"<table>{acts}</table><h2>True shares of the oracles' gaps</h2><ul>{shares}</ul>{plots}</html>"
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
