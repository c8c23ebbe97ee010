"""Read ``schemas/*.yaml`` into frozen contracts; needs neither polars nor deltalake."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ospor_batch.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

TYPES = ("string", "integer", "number", "boolean", "date", "datetime")
CONSTRAINTS = ("required", "minimum", "maximum", "enum", "pattern", "unique")
FIELD_KEYS = {"name", "type", "unit", "dicom", "item", "access", "suppress", "description", "constraints"}
CONTRACT_KEYS = {
    "name", "version", "title", "grain", "access", "store", "bucket", "primaryKey", "foreignKeys", "fields", "rules",
}  # fmt: skip
# the compiled parser of the same safe subset reads all contracts in a tenth of the time
SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_BUCKETS = 100  # a bucket's number has two digits


@dataclass(frozen=True)
class Field:
    """One column: its type, unit, DICOM origin, who may see it and what holds for it."""

    name: str
    type: str
    description: str
    unit: str | None = None
    dicom: str | None = None
    item: int | None = None
    access: str = "shared"
    suppress: bool = False
    constraints: tuple[tuple[str, Any], ...] = ()

    @property
    def is_required(self) -> bool:
        return dict(self.constraints).get("required", False) is True


@dataclass(frozen=True)
class Contract:
    """One table: its columns, key, rules and the door that it is stored behind.

    bucket_by: the keyed hash by which a large catalog table is spread over n_buckets, so that work follows the bucket.
    """

    name: str
    version: str
    title: str
    grain: str
    access: str
    is_catalog: bool
    primary_key: tuple[str, ...]
    foreign_keys: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...]
    fields: tuple[Field, ...]
    rules: tuple[tuple[str, str], ...]
    digest: str
    bucket_by: str | None = None
    n_buckets: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def id(self) -> str:
        """Name and version, as stamped into every file."""
        return f"{self.name}@{self.version}"

    def field(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise ContractError(f"{self.name}: no column {name!r}; it has {', '.join(self.columns)}")

    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the table, in the order of the contract."""
        import pyarrow as pa  # late: the command line reads contracts without Arrow

        types = {
            "string": pa.large_string(),
            "integer": pa.int64(),
            "number": pa.float64(),
            "boolean": pa.bool_(),
            "date": pa.date32(),
            "datetime": pa.timestamp("us", tz="UTC"),
        }
        return pa.schema([pa.field(f.name, types[f.type], nullable=not f.is_required) for f in self.fields])

    def stamp(self, **more: str) -> dict[str, str]:
        """Provenance for a file's metadata; it never excuses skipping a check."""
        return {"contract": self.id, "contract_digest": self.digest, **more}


def schemas_folder() -> Path:
    """Find ``schemas/``: inside the installed package first, in the work tree second."""
    installed = Path(str(resources.files("ospor_batch"))) / "schemas"
    folder = installed if installed.is_dir() else installed.parent.parent / "schemas"
    if not folder.is_dir():
        raise ContractError(f"the folder of contracts is missing: expected {folder}; reinstall ospor_batch")
    return folder


@functools.cache
def contract_names() -> tuple[str, ...]:
    """Names of all contracts, in alphabetical order."""
    return tuple(sorted(path.stem for path in schemas_folder().glob("*.yaml")))


@functools.cache
def contract(name: str) -> Contract:
    """Read one contract; ContractError when it is unknown or malformed."""
    if name not in contract_names():
        raise ContractError(f"no contract named {name!r}; there are {', '.join(contract_names())}")
    text = (schemas_folder() / f"{name}.yaml").read_bytes()
    return _contract(name, yaml.load(text, Loader=SAFE), hashlib.sha256(text).hexdigest()[:16])  # noqa: S506 - a safe loader


def _contract(name: str, raw: dict[str, Any], digest: str) -> Contract:
    if unknown := set(raw) - CONTRACT_KEYS:
        raise ContractError(f"schemas/{name}.yaml: unknown keys {sorted(unknown)}")
    if raw["name"] != name:
        raise ContractError(f"schemas/{name}.yaml: its name is {raw['name']!r}")
    fields = tuple(_field(name, field) for field in raw["fields"])
    columns = [field.name for field in fields]
    if len(set(columns)) != len(columns):
        raise ContractError(f"schemas/{name}.yaml: a column is declared twice")
    if missing := set(raw["primaryKey"]) - set(columns):
        raise ContractError(f"schemas/{name}.yaml: primary key names unknown columns {sorted(missing)}")
    bucket = raw.get("bucket", {"by": None, "into": 1})
    if bucket["by"] not in {None, *columns} or not 1 <= bucket["into"] <= MOST_BUCKETS:
        raise ContractError(f"schemas/{name}.yaml: bucket names no column, or not 1 to {MOST_BUCKETS} buckets")
    foreign = tuple(
        (tuple(key["fields"]), key["reference"]["resource"], tuple(key["reference"]["fields"]))
        for key in raw.get("foreignKeys", [])
    )
    return Contract(
        name=name,
        version=str(raw["version"]),
        title=raw["title"],
        grain=raw["grain"],
        access=raw["access"],
        is_catalog=raw.get("store") == "catalog",
        primary_key=tuple(raw["primaryKey"]),
        foreign_keys=foreign,
        fields=fields,
        rules=tuple((rule["name"], rule["sql"]) for rule in raw.get("rules", [])),
        digest=digest,
        bucket_by=bucket["by"],
        n_buckets=bucket["into"],
    )


def _field(contract_name: str, raw: dict[str, Any]) -> Field:
    where = f"schemas/{contract_name}.yaml: {raw.get('name')}"
    if unknown := set(raw) - FIELD_KEYS:
        raise ContractError(f"{where}: unknown keys {sorted(unknown)}")
    if raw["type"] not in TYPES:
        raise ContractError(f"{where}: type {raw['type']!r} is none of {', '.join(TYPES)}")
    constraints = raw.get("constraints", {})
    if unknown := set(constraints) - set(CONSTRAINTS):
        raise ContractError(f"{where}: unknown constraints {sorted(unknown)}")
    frozen = tuple((key, tuple(v) if isinstance(v, list) else v) for key, v in constraints.items())
    return Field(**{**raw, "constraints": frozen})
