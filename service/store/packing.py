"""Packing results into bytes and JSON before the transaction that stores them, or saying why that is not possible."""

import hashlib
import io
import json
import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from occluscope.analyses.contract import Outcome
from occluscope.errors import OccluscopeError
from occluscope.results import KINDS, Metric, NamedResult, Packed, Variant
from service.store.variants import MAX_VARIANT, as_text

KEPT_ARRAY: Final = "array"  # name of a kept array inside its NPZ file
_NUMBERS: Final = "biuf"  # NumPy's kinds of booleans, integers and floats
_SHOWN: Final = 80  # characters of a value that a message shows


Which = tuple[str, Variant, str | None]  # a result's name, variant and picture


class UnpackableError(OccluscopeError):
    """A result cannot be stored; the message names it and says what is wrong."""


@dataclass(frozen=True)
class PackedResult:
    """A result in the form of its row.

    meta: its facts as JSON. array: in NPY format, with its shape; None for kinds without an array.
    stored_bytes: of both. The rest as `occluscope.results.NamedResult`.
    """

    name: str
    variant: Variant
    image: str | None
    kind: str
    meta: dict[str, Any]
    array: bytes | None
    shape: list[int] | None
    sha256: str
    stored_bytes: int

    @property
    def which(self) -> Which:
        """Its name, variant and picture, which no other result of the unit has."""
        return self.name, self.variant, self.image


@dataclass(frozen=True)
class PackedOutcome:
    """What a unit gave, in the form of its rows. kept: arrays for later stages, in NPZ format, by name."""

    results: Sequence[PackedResult]
    metrics: Sequence[Metric]
    kept: Mapping[str, bytes] = field(default_factory=dict)


def pack_outcome(outcome: Outcome) -> PackedOutcome:
    """Pack everything that a unit gave.

    NumPy's numbers become Python's, and a fact that is NaN (nothing was measured) becomes null.

    Raises
    ------
    UnpackableError
        One of them cannot be stored.
    """
    results = pack_results(outcome.results)
    require_each_once(results)
    kept = {name: _npz(name, array) for name, array in outcome.kept.items()}
    return PackedOutcome(results, pack_metrics(outcome.metrics), kept)


def pack_results(results: Sequence[NamedResult]) -> list[PackedResult]:
    """Pack results.

    Raises
    ------
    UnpackableError
        One of them cannot be stored.
    """
    return [_packed_result(named) for named in results]


def pack_metrics(metrics: Sequence[Metric]) -> list[Metric]:
    """Pack metrics.

    Raises
    ------
    UnpackableError
        One of them cannot be stored.
    """
    return [_packed_metric(metric) for metric in metrics]


def require_each_once(results: Sequence[PackedResult]) -> None:
    """Require that no two results of a unit have the same name, variant and picture.

    Raises
    ------
    UnpackableError
        Two have the same.
    """
    for which, times in Counter(result.which for result in results).items():
        if times > 1:
            raise UnpackableError(f"{_called('result', *which)} was given {times} times; right is once")


def require_none_given_before(results: Sequence[PackedResult], given: Iterable[Which]) -> None:
    """Require that a unit gives no result that it gave before.

    Raises
    ------
    UnpackableError
        It gave one before.
    """
    asked = {result.which for result in results}
    for which in given:
        if which in asked:
            raise UnpackableError(f"{_called('result', *which)} was given before; right is once")


def _packed_result(named: NamedResult) -> PackedResult:
    called = _called("result", named.name, named.variant, named.image)
    kind = getattr(named.result, "kind", None)
    if kind not in KINDS:
        raise UnpackableError(f"{called} is a {type(named.result).__name__}; right is one of {', '.join(KINDS)}")
    try:
        packed = named.result.pack()
        meta = _plain(packed.meta, "")
        text = json.dumps(meta, sort_keys=True)
        array = None if packed.array is None else _npy(packed)
        _require_text(named.name, "name")
        _require_text(named.image, "image", optional=True)
        _require_variant(named.variant)
    except UnpackableError as error:
        raise UnpackableError(f"{called} cannot be stored: {error}") from error
    except Exception as error:
        raise UnpackableError(f"{called} cannot be packed: {type(error).__name__}: {_shown(str(error))}") from error
    digest = hashlib.sha256(text.encode())
    digest.update(array or b"")
    return PackedResult(
        str(named.name),
        named.variant,
        named.image,
        str(kind),
        meta,
        array,
        None if packed.array is None else list(packed.array.shape),
        digest.hexdigest(),
        len(text) + len(array or b""),
    )


def _packed_metric(metric: Metric) -> Metric:
    called = _called("metric", metric.name, metric.variant, metric.image)
    value: Any = metric.value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, numbers.Real | np.bool_):
        raise UnpackableError(f"{called} cannot be stored: it is a {type(value).__name__}; right is a number")
    try:
        value = float(value)
        _require_text(metric.name, "name")
        _require_variant(metric.variant)
        for what, known in (("image", metric.image), ("unit", metric.unit)):
            _require_text(known, what, optional=True)
    except (UnpackableError, OverflowError) as error:
        raise UnpackableError(f"{called} cannot be stored: {error}") from error
    if not math.isfinite(value):
        raise UnpackableError(f"{called} cannot be stored: it is {value}; right is a finite number, or no metric")
    return replace(metric, value=value)


def _plain(value: Any, path: str) -> Any:
    """A fact as JSON. path: of the fact, for messages."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        number = value.item()
        value = float(number) if isinstance(number, np.floating) else number  # long doubles have no equal in Python
    if isinstance(value, str):
        _require_text(value, path)
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise UnpackableError(f"{path} is {value}, which JSON does not have; right is a finite number or none")
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(one, f"{path}.{key}".lstrip(".")) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{path}.{place}".lstrip(".")) for place, one in enumerate(value)]
    raise UnpackableError(
        f"{path or 'its facts'} is a {type(value).__name__} ({_shown(repr(value))}); "
        "right are text, numbers, true, false, none, and lists and mappings of these"
    )


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise UnpackableError(f"{path or 'its facts'} has the name {_shown(repr(key))}; right is text")
    _require_text(key, path)
    return str(key)


def _require_text(value: Any, what: str, *, optional: bool = False) -> None:
    """Require text that every database can store."""
    if optional and value is None:
        return
    if not isinstance(value, str):
        raise UnpackableError(f"{what} is a {type(value).__name__} ({_shown(repr(value))}); right is text")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value if letter > "\ud7ff"):
        raise UnpackableError(f"{what} is {_shown(ascii(value))}; right is text without NUL and half characters")


def _require_variant(variant: Any) -> None:
    """Require parts of text that every database can store, and that fit in the column."""
    if not isinstance(variant, Variant):
        raise UnpackableError(f"variant is a {type(variant).__name__} ({_shown(repr(variant))}); right is a Variant")
    for name, value in variant.parts:
        _require_text(name, "a part's name in variant")
        _require_text(value, f"variant.{name}")
    if len(variant.to_json()) < len(variant.parts):
        raise UnpackableError(f"variant is {_shown(repr(variant.parts))}; right is one part of each name")
    if (length := len(as_text(variant))) > MAX_VARIANT:
        raise UnpackableError(f"variant has {length:,} letters as JSON; right are at most {MAX_VARIANT:,}")


def _npy(packed: Packed) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, _numeric(packed.array), allow_pickle=False)
    return buffer.getvalue()


def _npz(name: Any, array: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        _require_text(name, "its name")
        np.savez_compressed(buffer, allow_pickle=False, **{KEPT_ARRAY: _numeric(array)})
    except UnpackableError as error:
        raise UnpackableError(f"kept array {name!r} cannot be stored: {error}") from error
    return buffer.getvalue()


def _numeric(array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise UnpackableError(f"its array is a {type(array).__name__}; right is a NumPy array")
    if array.dtype.kind not in _NUMBERS:
        raise UnpackableError(f"its array is of {array.dtype}; right are booleans, integers or floats")
    return array


def _called(what: str, name: Any, variant: Any, image: Any) -> str:
    of = f" ({variant})" if variant else ""
    picture = f" of picture {image}" if image else ""
    return _shown(f"{what} {name!r}{of}{picture}", 4 * _SHOWN)


def _shown(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
