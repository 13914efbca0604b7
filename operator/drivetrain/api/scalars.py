"""Text forms shared by the resources: exact decimals, durations, names, quantities."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DECIMAL_PATTERN = r"^-?[0-9]{1,15}(\.[0-9]{1,12})?$"
_DURATION_PATTERN = r"^([0-9]{1,9}(ms|s|m|h|d|w)){1,6}$"
_DURATION_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def parse_decimal(text: object) -> Decimal:
    """The exact decimal written as `text`; floats are refused because 0.1 is not a tenth."""
    if isinstance(text, Decimal):
        return text
    if isinstance(text, str | int) and re.match(_DECIMAL_PATTERN, str(text)):
        return Decimal(text)
    raise ValueError(f"{text!r} is not a decimal in quotes, such as '1.69', of up to 15 digits and 12 behind the point")


def format_decimal(value: Decimal) -> str:
    """The shortest plain text of `value`, without exponent or trailing zeros."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def parse_duration(text: object) -> timedelta:
    """The duration written as `text`, such as 90s, 1h30m or 7d."""
    if isinstance(text, timedelta):
        return text
    if isinstance(text, str) and re.match(_DURATION_PATTERN, text):
        return sum(
            (int(count) * _DURATION_UNITS[unit] for count, unit in re.findall(r"([0-9]+)(ms|s|m|h|d|w)", text)),
            timedelta(),
        )
    raise ValueError(f"{text!r} is not a duration such as 90s, 1h30m or 7d")


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as `value`, whole milliseconds."""
    rest = round(value / timedelta(milliseconds=1))
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_DURATION_UNITS[unit] / timedelta(milliseconds=1))
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


INT_OR_STRING: JsonSchemaValue = {"x-kubernetes-int-or-string": True}
"""What a schema says of text that people may write as an integer."""


class _TextForm:
    """Gives a Python type its text form: one pattern in the schema, one parser, one formatter."""

    def __init__(self, parse: Any, write: Any, pattern: str, *, or_integer: bool = False) -> None:
        self._parse, self._write = parse, write
        self._schema: JsonSchemaValue = {"type": "string", "pattern": pattern, "maxLength": 32}
        if or_integer:
            self._schema |= INT_OR_STRING

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self._write, return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self._schema)


DecimalText = Annotated[Decimal, _TextForm(parse_decimal, format_decimal, _DECIMAL_PATTERN, or_integer=True)]
"""An exact decimal, written as text."""

Duration = Annotated[timedelta, _TextForm(parse_duration, format_duration, _DURATION_PATTERN)]
"""A duration, written as text: 90s, 1h30m, 7d."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", min_length=1, max_length=63)]
"""A name usable in expressions: a column, lever, source or metric."""

DNSLabel = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
"""The name of a Kubernetes object, DNS-1035."""

ExpressionText = Annotated[str, Field(min_length=1, max_length=1024)]
"""A row-wise expression in SQL spelling: arithmetic, comparison, CASE, least, greatest, coalesce, abs, ln, exp."""

Quantity = Annotated[
    str,
    BeforeValidator(
        lambda value: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    ),
    Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", max_length=32, json_schema_extra=INT_OR_STRING),
]
"""A Kubernetes quantity, such as 500m, 2 or 4Gi."""

URI = Annotated[str, Field(pattern=r"^(s3|https|file)://.+$", max_length=1024)]
"""Where data lies: s3://bucket/prefix, https://host/path or file:///path."""

Choice = Annotated[str, Field(min_length=1, max_length=128)]
"""One value of a categorical lever, or one class of a target."""

Text = Annotated[str, Field(max_length=1024)]
"""A sentence or two for people."""
