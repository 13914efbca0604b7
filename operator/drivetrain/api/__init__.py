"""The public contract: resources, reports, ledgers, expressions, errors. Needs pydantic and the standard library."""
