"""The column type of variants: equal variants are stored as equal text, so that a unique constraint can include it."""

import json
from typing import Final

from sqlalchemy import Dialect, String, TypeDecorator
from sqlalchemy.types import TypeEngine

from occluscope.results import Variant

MAX_VARIANT: Final = 1000  # letters of its text
_ON_SQLITE: Final = 300  # which takes any length, and changes no column's type


class VariantText(TypeDecorator[Variant]):
    """A variant as a JSON object of its parts, in their order; empty text if it has no parts."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return dialect.type_descriptor(String(_ON_SQLITE if dialect.name == "sqlite" else MAX_VARIANT))

    def process_bind_param(self, value: Variant | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else as_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Variant | None:  # noqa: ARG002
        return None if value is None else Variant.from_json(json.loads(value or "{}"))


def as_text(variant: Variant) -> str:
    """The text of a variant in the column."""
    return json.dumps(variant.to_json(), ensure_ascii=False, separators=(",", ":")) if variant else ""
