"""A pydantic model as a structural schema: what a CustomResourceDefinition accepts (OpenAPI v3, nothing left open)."""

import inspect
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import TypeAlias

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from drivetrain.api.documents import JSON
from drivetrain.api.meta import ApiModel, Rule
from drivetrain.api.scalars import INT_OR_STRING, format_decimal, format_duration

Schema: TypeAlias = dict[str, JSON]

_COPIED = ("enum", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems", "minProperties")
_DATE_TIME_LENGTH = 64


def structural_schema(model: type[ApiModel], *, status: bool = False) -> Schema:
    """The schema of one model: references inlined, null dropped, defaults, CEL rules and list types added.

    In a status only `observedGeneration` has a default, so that the API server adds nothing to what the operator wrote.
    Raises TypeError for a type that a structural schema cannot state.
    """
    schema = model.model_json_schema(schema_generator=_WithRules)
    return _Converter(schema.get("$defs", {}), status=status).convert(schema, "")


def rules_of(model: type[ApiModel]) -> tuple[Rule, ...]:
    """The CEL rules of a model and its bases, the bases' first."""
    return tuple(rule for base in reversed(model.__mro__) for rule in base.__dict__.get("cel", ()))


def rule_document(rule: Rule) -> Schema:
    """A CEL rule as an entry of x-kubernetes-validations."""
    path: Schema = {"fieldPath": rule.field_path} if rule.field_path else {}
    return {"rule": rule.rule, "message": rule.message, **path}


class _WithRules(GenerateJsonSchema):
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        model = schema["cls"]
        if issubclass(model, ApiModel) and (rules := rules_of(model)):
            result["x-kubernetes-validations"] = [rule_document(rule) for rule in rules]
        return result

    def encode_default(self, dft: object) -> JSON:
        """Defaults in their text form, which pydantic does not ask the type for."""
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if isinstance(dft, Decimal):
            return format_decimal(dft)
        encoded: JSON = super().encode_default(dft)
        return encoded

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        """As declared: people read it."""
        return value


class _Converter:
    def __init__(self, definitions: Mapping[str, JsonSchemaValue], *, status: bool) -> None:
        self._definitions = definitions
        self._status = status

    def convert(self, source: JsonSchemaValue, path: str) -> Schema:
        """One node; `path` names it in errors."""
        source = self._resolved(source)
        variants = source.get("anyOf")
        if variants is not None:
            return self._union(source, [self._resolved(variant) for variant in variants], path)
        if "const" in source:
            source = {**source, "enum": [source["const"]]}
        if "x-kubernetes-int-or-string" in source:
            return _int_or_string(source)
        kind = source.get("type") or ("string" if "enum" in source else None)
        if kind is None:
            raise TypeError(f"{path or 'the model'} has no type that a structural schema can state: {source}")
        result: Schema = {}
        if "description" in source:
            result["description"] = _paragraphs(source["description"])
        result["type"] = kind
        result |= {key: source[key] for key in _COPIED if key in source}
        result |= _limits(source)
        if kind == "integer":
            result["format"] = "int64"
        if source.get("format") == "date-time":
            result["maxLength"] = _DATE_TIME_LENGTH
        if kind == "array":
            result["items"] = self._without_description(source.get("items", {}), f"{path}[]")
            result |= self._list_type(result, path)
        elif kind == "object":
            result |= self._object(source, path)
        if "x-kubernetes-validations" in source:
            result["x-kubernetes-validations"] = source["x-kubernetes-validations"]
        return result

    def _resolved(self, source: JsonSchemaValue) -> JsonSchemaValue:
        """The definition behind a reference; keys beside the reference win. `X or null` is X."""
        if "$ref" in source:
            definition = self._definitions[source["$ref"].removeprefix("#/$defs/")]
            source = {**definition, **{key: value for key, value in source.items() if key != "$ref"}}
        some = [variant for variant in source.get("anyOf", ()) if variant.get("type") != "null"]
        if len(some) == 1:
            rest = {key: value for key, value in source.items() if key != "anyOf"}
            return self._resolved({**self._resolved(some[0]), **rest})
        return source

    def _union(self, source: JsonSchemaValue, variants: list[JsonSchemaValue], path: str) -> Schema:
        """Several scalar types. Only text has one type to state; a mixture is left to `drivetrain validate`."""
        described: Schema = {"description": _paragraphs(source["description"])} if "description" in source else {}
        kinds = {variant.get("type") for variant in variants} - {"null"}
        if any("x-kubernetes-int-or-string" in variant for variant in variants):
            return _int_or_string({**described, **INT_OR_STRING})
        if kinds == {"string"}:
            lengths = [variant["maxLength"] for variant in variants if "maxLength" in variant]
            return (
                described | {"type": "string"} | ({"maxLength": max(lengths)} if len(lengths) == len(variants) else {})
            )
        if kinds <= {"string", "number", "integer", "boolean"}:
            return described | {"x-kubernetes-preserve-unknown-fields": True}
        raise TypeError(f"{path} is a union that a structural schema cannot state: {sorted(map(str, kinds))}")

    def _object(self, source: JsonSchemaValue, path: str) -> Schema:
        if "properties" not in source:
            values = [*source.get("patternProperties", {}).values(), source.get("additionalProperties")]
            value = next((value for value in values if isinstance(value, dict)), None)
            if value is None:
                raise TypeError(f"{path} is a map without a type of value")
            return {
                "additionalProperties": self._without_description(value, f"{path}{{}}"),
                **({"maxProperties": source["maxProperties"]} if "maxProperties" in source else {}),
            }
        required = source.get("required", [])
        properties: Schema = {}
        for name, value in source["properties"].items():
            child = self.convert(value, f"{path}.{name}")
            if name not in required:
                child |= self._default(name, value, child, path)
            properties[name] = child
        return {**({"required": required} if required else {}), "properties": properties}

    def _default(self, name: str, source: JsonSchemaValue, child: Schema, path: str) -> Schema:
        if self._status:
            return {"default": -1} if (path, name) == ("", "observedGeneration") else {}
        if "default" in source:
            default = source["default"]
            return {} if default in (None, [], {}, "") else {"default": default}
        # pydantic builds the default of this field. It is spelled out, because rules are checked on it as it stands.
        properties = child.get("properties")
        if not isinstance(properties, dict):
            return {}
        return {"default": {key: below["default"] for key, below in properties.items() if "default" in below}}

    def _list_type(self, array: Schema, path: str) -> Schema:
        """Lists of named things merge and are unique by name; lists of text are sets."""
        items = array["items"]
        if not isinstance(items, dict):
            return {}
        if items.get("type") == "string" and not self._status:
            return {"x-kubernetes-list-type": "set"}
        required = items.get("required")
        for key in ("type",) if path == ".conditions" else ("name",) * (not self._status):
            if isinstance(required, list) and key in required:
                return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
        return {}

    def _without_description(self, source: JsonSchemaValue, path: str) -> Schema:
        result = self.convert(source, path)
        result.pop("description", None)
        return result


def _int_or_string(source: JsonSchemaValue) -> Schema:
    copied: Schema = {key: source[key] for key in ("description", "pattern", "maxLength", "default") if key in source}
    return {**copied, "x-kubernetes-int-or-string": True}


def _limits(source: JsonSchemaValue) -> Schema:
    result: Schema = {key: source[key] for key in ("minimum", "maximum") if key in source}
    for key, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in source:
            result |= {key: source[exclusive], exclusive: True}
    return result


def _paragraphs(description: str) -> str:
    """The text with lines joined, paragraphs kept."""
    return "\n".join(" ".join(part.split()) for part in inspect.cleandoc(description).split("\n\n"))
