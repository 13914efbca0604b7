"""The public contract: resources, reports, ledgers, expressions and errors. Imports pydantic and the standard library only."""
