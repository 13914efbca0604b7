"""A forecast in words. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rich.text import Text

from drivetrain.api.documents import Document, text
from drivetrain.api.kinds import RAY_JOB, Ref, ref_of
from drivetrain.api.names import LEDGER_KEY
from drivetrain.cli.asks import Level, described, worst
from drivetrain.cli.forecast import Forecast, Planned, Priced

_MARKS: Mapping[Level, tuple[str, str]] = {
    "fits": ("fits", "green"),
    "waits": ("waits", "yellow"),
    "unknown": ("unknown", "yellow"),
    "never": ("never", "red"),
}
SMALL = ("ConfigMap", "NetworkPolicy", "ServiceAccount", "Role", "RoleBinding")
"""Kinds that come in numbers and that nobody reads one by one."""


def forecast_text(forecast: Forecast) -> Text:
    """What applying would do, in sections; sections that would be empty are left out."""
    told = Text()
    for planned in forecast.planned:
        told.append(_headline(planned), style="bold")
        for change in planned.changes:
            told.append(f"    {change}\n", style={"+": "green", "-": "red"}.get(str(change)[0], "yellow"))
        if planned.refused:
            told.append(f"    refused: {planned.refused}\n", style="red")
    if forecast.other:
        told.append(f"{forecast.other} documents of other groups are not judged\n", style="dim")
    prediction = forecast.prediction
    own = {planned.ref for planned in forecast.planned}
    _section(told, "creates", _named(each for each in prediction.created if ref_of(each) not in own))
    _section(told, "changes", _named(prediction.changed))
    _section(told, "deletes", (str(ref) for ref in prediction.deleted))
    for priced in forecast.priced:
        _priced(told, priced)
    _section(told, "waits for", forecast.waits)
    _section(told, "not known", forecast.unread)
    return told


def _headline(planned: Planned) -> str:
    state = "new" if not planned.exists else "changes" if planned.changes else "unchanged"
    return f"{planned.ref.kind.kind} {planned.ref.name} in namespace {planned.ref.namespace}: {state}\n"


def _priced(told: Text, priced: Priced) -> None:
    told.append(f"\n{priced.ask.subject}", style="bold")
    told.append(f" asks for {described(priced.ask.total)} in {sum(pod.count for pod in priced.ask.pods)} Pods\n")
    for judged in priced.judged:
        mark, style = _MARKS[judged.level]
        told.append(f"    {mark:8}", style=style)
        told.append(f"{judged.told}\n")
    for line in priced.cost:
        told.append("    costs   ", style="dim")
        told.append(f"{line}\n")


def _section(told: Text, title: str, lines: Iterable[str]) -> None:
    found = tuple(lines)
    if found:
        told.append(f"\n{title}\n", style="bold")
        for line in found:
            told.append(f"    {line}\n")


def _named(documents: Iterable[Document]) -> Iterator[str]:
    """What there is by name; records and accounts are counted."""
    small: Counter[str] = Counter()
    for document in documents:
        ref = ref_of(document)
        if ref.kind.kind in SMALL:
            small[ref.kind.kind] += 1
        else:
            yield f"{ref.kind.kind} {ref.name}{_because(ref, document)}"
    if small:
        yield ", ".join(f"{kind} x{count}" if count > 1 else kind for kind, count in sorted(small.items()))


def _because(ref: Ref, document: Document) -> str:
    if ref.kind == RAY_JOB and ref.name.endswith("-p"):
        return ", which prepares the data; the one with the GPUs follows it"
    cause = text(document, "spec", "trigger", "cause")
    return f" ({cause})" if cause else ""


def as_document(forecast: Forecast) -> Document:
    """The forecast for `-o json|yaml`: what scripts ask of it."""
    return {
        "possible": forecast.possible,
        "planned": [
            {
                "kind": each.ref.kind.kind,
                "namespace": each.ref.namespace,
                "name": each.ref.name,
                "exists": each.exists,
                "changes": [
                    {"field": change.field, "before": change.before, "after": change.after} for change in each.changes
                ],
                **({"refused": each.refused} if each.refused else {}),
            }
            for each in forecast.planned
        ],
        "creates": [_without_ledger(each) for each in forecast.prediction.created],
        "changes": [_without_ledger(each) for each in forecast.prediction.changed],
        "deletes": [str(ref) for ref in forecast.prediction.deleted],
        "asks": [
            {
                "subject": each.ask.subject,
                "resources": {name: str(amount) for name, amount in sorted(each.ask.total.items())},
                "verdict": worst(judged.level for judged in each.judged),
                "because": [{"level": judged.level, "told": judged.told} for judged in each.judged],
                "cost": list(each.cost),
            }
            for each in forecast.priced
        ],
        "waits": list(forecast.waits),
        "unknown": list(forecast.unread),
    }


def _without_ledger(document: Document) -> Document:
    """Ledgers are the operator's memory, not something to apply: only their name is shown."""
    data = document.get("data")
    if isinstance(data, Mapping) and LEDGER_KEY in data:
        return {key: part for key, part in document.items() if key != "data"}
    return document
