"""What data there is, what each column may be used for, and what must still be collected."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivetrain.api.meta import ApiModel, Rule
from drivetrain.api.scalars import URI, Choice, DNSLabel, ExpressionText, Identifier, Text


class SecretReference(ApiModel):
    """A Secret of the same namespace; its contents are referenced, never copied."""

    secret_name: DNSLabel
    """Name of the Secret."""


class Store(ApiModel):
    """The S3 prefix that holds everything the project makes: data versions, models, logs, attempts."""

    uri: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/.*)?$", max_length=512)
    """s3://bucket/prefix, owned by this project."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://.+$", max_length=256)
    """S3 endpoint, when it is not AWS."""
    region: str | None = Field(default=None, max_length=64)
    """S3 region."""
    credentials: SecretReference
    """Secret with keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""


class Source(ApiModel):
    """Where rows come from. Sources without `joinOn` are appended; with it, their columns are joined by that key."""

    name: Identifier
    """Name of the source."""
    origin: Literal["InHouse", "Public", "Collected"] = "InHouse"
    """Whose data it is; Collected comes from the loop itself."""
    uri: URI | None = None
    """File, or prefix under which every file is read; absent for the decision log."""
    format: Literal["Parquet", "CSV", "JSONLines", "DecisionLog"]
    """How rows are written. DecisionLog is the project's own log, joined with its matured outcomes."""
    join_on: Identifier | None = None
    """Key by which this source's columns are joined to the rows of the others (left join, one row a key)."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://.+$", max_length=256)
    """S3 endpoint, when it differs from the store's."""
    region: str | None = Field(default=None, max_length=64)
    """S3 region, when it differs from the store's."""
    credentials: SecretReference | None = None
    """Secret for this source, when it differs from the store's."""

    cel: ClassVar = (
        Rule(
            "self.format == 'DecisionLog' ? !has(self.uri) : has(self.uri)",
            "a source takes a uri, unless its format is DecisionLog",
            ".uri",
        ),
    )

    @model_validator(mode="after")
    def _uri_fits_format(self) -> Self:
        if (self.format == "DecisionLog") == (self.uri is not None):
            raise ValueError("a source takes a uri, unless its format is DecisionLog")
        return self


ColumnRole = Literal["Context", "Lever", "Derived", "Uncontrolled", "AfterAction", "Assignment", "Identifier"]
ColumnType = Literal["Integer", "Float", "Boolean", "String", "Timestamp"]


class Column(ApiModel):
    """A column of the contract: its type, its bounds, and what it may be used for."""

    name: Identifier
    """Name of the column."""
    role: ColumnRole
    """Context: known when deciding, a model input. Lever: set by the decision. Derived: computed from the former two.

    Uncontrolled: outside our control and no model input (splits, slices). AfterAction: known only afterwards.
    Assignment: logged propensity of the row's action. Identifier: names the row or its unit."""
    type: ColumnType
    """Type of its values."""
    minimum: float | None = None
    """Least value allowed."""
    maximum: float | None = None
    """Greatest value allowed."""
    nullable: bool = False
    """Whether values may be missing."""
    expression: ExpressionText | None = None
    """Derived: how it is computed from Context, Lever and earlier Derived columns, for every candidate action."""

    cel: ClassVar = (
        Rule(
            "(self.role == 'Derived') == has(self.expression)",
            "a Derived column takes an expression; other columns take none",
            ".expression",
        ),
        Rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
            "column minimum must not be above its maximum",
            ".minimum",
        ),
    )

    @model_validator(mode="after")
    def _expression_fits_role(self) -> Self:
        if (self.role == "Derived") != (self.expression is not None):
            raise ValueError("a Derived column takes an expression; other columns take none")
        return self


class Target(ApiModel):
    """What models predict."""

    name: Identifier
    """Column with the target; also its name in expressions and outcomes."""
    type: Literal["Binary", "Multiclass", "Regression"]
    """What it is. Binary is 0/1 or false/true."""
    classes: tuple[Choice, ...] = Field(default=(), max_length=64)
    """The classes of a Multiclass target."""
    minimum: float | None = None
    """Least value of a Regression target; bounds the KPI."""
    maximum: float | None = None
    """Greatest value of a Regression target; bounds the KPI."""

    cel: ClassVar = (
        Rule(
            "(self.type == 'Multiclass') == (has(self.classes) && self.classes.size() > 2)",
            "a Multiclass target takes at least three classes; other targets take none",
            ".classes",
        ),
    )

    @model_validator(mode="after")
    def _classes_fit_type(self) -> Self:
        if (self.type == "Multiclass") != (len(self.classes) > 2):
            raise ValueError("a Multiclass target takes at least three classes; other targets take none")
        return self


class Split(ApiModel):
    """How rows are divided; a row's part is a stable hash of its group, or its time, so that it never changes."""

    strategy: Literal["Time", "Group", "Random"] = "Random"
    """Time: the latest rows test. Group: whole groups move together. Random: each row for itself."""
    column: Identifier | None = None
    """Time or Group: the column."""
    validation: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of rows that tune."""
    test: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of rows that the gates judge on."""

    cel: ClassVar = (
        Rule(
            "(self.strategy == 'Random') != has(self.column)",
            "a Time or Group split takes a column; a Random one takes none",
            ".column",
        ),
    )

    @model_validator(mode="after")
    def _column_fits_strategy(self) -> Self:
        if (self.strategy == "Random") == (self.column is not None):
            raise ValueError("a Time or Group split takes a column; a Random one takes none")
        return self


class Wanted(ApiModel):
    """A column that is not there yet."""

    name: Identifier
    """Name it will have; it must not be in `columns` yet."""
    why: Text
    """What it would be good for."""
    how: Literal["Import", "Exploration", "Labelling"]
    """How it will be collected."""


class Dataset(ApiModel):
    """The data contract."""

    store: Store
    """Where everything the project makes lies."""
    sources: tuple[Source, ...] = Field(min_length=1, max_length=32)
    """Where rows come from."""
    columns: tuple[Column, ...] = Field(min_length=1, max_length=512)
    """The contract of each column."""
    target: Target
    """What models predict."""
    split: Split = Field(default_factory=Split)
    """How rows are divided."""
    slices: tuple[Identifier, ...] = Field(default=(), max_length=8)
    """Columns by whose values metrics are broken down; need not be model inputs."""
    to_collect: tuple[Wanted, ...] = Field(default=(), max_length=32)
    """What must still be collected."""

    def column(self, name: str) -> Column | None:
        """The column of that name, if declared."""
        return next((column for column in self.columns if column.name == name), None)

    def with_role(self, *roles: ColumnRole) -> tuple[Column, ...]:
        """The columns of these roles, in declared order."""
        return tuple(column for column in self.columns if column.role in roles)


class TrainingWindow(ApiModel):
    """Which decision-log rows a retraining uses, and how much older ones weigh."""

    since: str = Field(max_length=40)
    """Start of the window, RFC 3339: rows decided from then on weigh 1."""
    stale_weight: float = Field(default=0, ge=0, le=1)
    """Weight of all other rows."""
