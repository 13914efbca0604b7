"""The endpoint's own documentation, generated from the contract that is in force."""

import html
from typing import Any, Final

from drivetrain.serving.rows import ROW_LIMIT, TODAY, Field
from drivetrain.serving.view import Serving

_TYPES: Final[dict[str, dict[str, str]]] = {
    "Integer": {"type": "integer"},
    "Float": {"type": "number"},
    "Boolean": {"type": "boolean"},
    "String": {"type": "string"},
    "Timestamp": {"type": "string", "format": "date-time"},
}
_NUMBER: Final = {"type": ["number", "null"]}


def document(serving: Serving) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this endpoint."""
    contract, target = serving.contract, serving.stable.policy.target
    lever_values = {
        lever.name: {"type": "string", "enum": list(lever.choices)}
        if lever.type == "Categorical"
        else {"type": "number", "minimum": float(lever.minimum or 0), "maximum": float(lever.maximum or 0)}
        for lever in contract.levers
    }
    action = {"type": "object", "properties": lever_values, "required": sorted(lever_values)}
    properties = {name: _property(field) for name, field in contract.fields.items()}
    properties[TODAY] = {**action, "description": "Today's action, where the caller knows it."}
    required = [name for name, field in contract.fields.items() if field.required]
    row = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [*required, *([TODAY] if contract.needs_today else [])],
    }
    decision = {
        "type": "object",
        "properties": {
            "decisionId": {"type": "string"},
            "action": {"oneOf": [action, {"type": "null"}]},
            "expectedValue": {**_NUMBER, "description": "KPI promised for the action."},
            "interval": {
                "type": "object",
                "properties": {"lower": _NUMBER, "upper": _NUMBER, "covers": {"enum": ["mean", "outcome"]}},
            },
            "bindingConstraints": {"type": "array", "items": {"type": "string"}},
            "shadowPrice": {"type": "object", "additionalProperties": {"type": "number"}},
            "explored": {"type": "boolean"},
            "variant": {"enum": ["stable", "candidate", "holdout", "none"]},
            "policy": {"type": "string"},
            "fallback": {"type": ["string", "null"]},
            "outOfDomain": {"type": "array", "items": {"type": "string"}},
        },
    }
    outcome = {
        "type": "object",
        "required": ["decisionId"],
        "properties": {
            "decisionId": {"type": "string"},
            target.name: {"description": f"The {target.type} target."},
            "kpi": {"type": "number", "description": "Only when it does not follow from the value expression."},
            "applied": {**action, "description": "The action applied, when a person overrode it."},
        },
    }
    reported = {
        "type": "object",
        "properties": {"decisionId": {"type": "string"}, "correction": {"type": "integer"}},
    }
    value = {"type": "object", "properties": {"expectedValue": {"type": "array", "items": _NUMBER}}}
    paths = {
        "/v1/decide": _post("Choose an action for each row", {"rows": _rows(row)}, {"rows": _rows(decision)}),
        "/v1/simulate": _post(
            "Value each of the given lever settings for each row",
            {"rows": _rows(row), "actions": {"type": "array", "items": action}},
            {"rows": _rows(value)},
        ),
        "/v1/outcomes": _post(
            "Report what became of decisions", {"outcomes": _rows(outcome)}, {"outcomes": _rows(reported)}
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": serving.stable.policy.objective.description or "Drivetrain endpoint", "version": "1"},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
        "paths": {} if serving.config.pinned else paths,
    }


def page(serving: Serving) -> str:
    """The same for people: one page without scripts."""
    rows = "".join(
        f"<tr><td><code>{html.escape(field.name)}</code></td><td>{field.type}</td>"
        f"<td>{'required' if field.required else 'optional'}{', may be null' if field.nullable else ''}</td>"
        f"<td>{html.escape(field.why)}</td></tr>"
        for field in serving.contract.fields.values()
    )
    title = html.escape(serving.stable.policy.objective.description or "Drivetrain endpoint")
    head = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        f"td,th{{text-align:left;padding:.2rem 1rem .2rem 0}}</style><h1>{title}</h1>"
    )
    both = "<li><code>/v2</code>: Open Inference Protocol</li><li><code>GET /metrics</code></li>"
    if serving.config.pinned:
        return f"{head}<p>This endpoint serves a pinned version and makes no decisions.</p><ul>{both}</ul>"
    levers = ", ".join(html.escape(lever.name) for lever in serving.contract.levers)
    return (
        f"{head}<p>This endpoint sets {levers}. Calls carry <code>Authorization: Bearer KEY</code> and up to "
        f"{ROW_LIMIT} rows. Machine-readable: <a href=openapi.json>openapi.json</a>.</p>"
        "<ul><li><code>POST /v1/decide</code> {rows}: the best action of each row</li>"
        "<li><code>POST /v1/simulate</code> {rows, actions}: the value of given lever settings</li>"
        "<li><code>POST /v1/outcomes</code> {outcomes}: what became of decisions</li>"
        f"{both}</ul><h2>Fields of a row</h2><table><tr><th>Field<th>Type<th>Presence<th>Why</tr>{rows}</table>"
    )


def _property(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = dict(_TYPES[field.type])
    if field.nullable or not field.required:
        schema["type"] = [schema["type"], "null"]
    return {**schema, "description": field.why}


def _rows(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": ROW_LIMIT, "items": item}


def _post(summary: str, request: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    body = {"type": "object", "properties": request, "required": list(request)}
    errors = {
        "401": "no or an unknown key",
        "403": "a key for something else",
        "413": "too large",
        "422": "rows or fields that break the contract; nothing was done",
        "429": "too many rows a second",
        "503": "not ready, or the log cannot be written; ask again",
    }
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {
                    "description": "Done",
                    "content": {"application/json": {"schema": {"type": "object", "properties": response}}},
                },
                **{status: {"description": text} for status, text in errors.items()},
            },
        }
    }
