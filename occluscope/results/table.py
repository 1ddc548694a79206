"""table: rows under typed columns."""

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, Self

from occluscope.results.kind import Json, Packed, Result
from occluscope.results.rows import as_csv

Cell = str | int | float | None


@dataclass(frozen=True)
class Column:
    """One column. type: of its cells. unit: of its numbers; None for text and for numbers without a unit."""

    name: str
    type: Literal["text", "integer", "number"]
    unit: str | None = None


@dataclass(frozen=True)
class Table(Result):
    """Rows of cells, each row as long as `columns`. caption: what the table shows, in words."""

    kind: ClassVar[str] = "table"
    formats: ClassVar[tuple[str, ...]] = ("png", "json", "csv")

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str

    def pack(self) -> Packed:
        return Packed(
            {
                "columns": [asdict(column) for column in self.columns],
                "rows": [list(row) for row in self.rows],
                "caption": self.caption,
            }
        )

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        columns = tuple(Column(**column) for column in packed.meta["columns"])
        return cls(columns, tuple(tuple(row) for row in packed.meta["rows"]), packed.meta["caption"])

    def to_json(self) -> Json:
        return {"kind": self.kind, **self.pack().meta}

    def to_csv(self) -> str:
        return as_csv([column.name for column in self.columns], self.rows)
