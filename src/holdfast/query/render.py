"""Arrow batches -> what `POST /query` answers. In the worker process only, which needs the extra `holdfast[sql]`.

JSON as Restate's server writes it: columns that are null are left out, bytes are hexadecimal, timestamps RFC 3339,
durations ISO 8601.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow brings no types for what is used here.

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Texts = list[str | None]
"""One JSON text for each value, None for null."""


def arrow_stream(schema: Any, batches: Sequence[Any]) -> bytes:
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def json_rows(batches: Sequence[Any]) -> bytes:
    """`{"rows":[{…}]}`."""
    rows: list[str] = []
    for batch in batches:
        fields = [
            _fields(f"{json.dumps(name, ensure_ascii=False)}:", column)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if column.null_count < batch.num_rows  # most columns of `SELECT *` are empty
        ]
        if fields:
            rows += [f"{{{','.join(filter(None, row))}}}" for row in zip(*fields, strict=True)]
        else:
            rows += ["{}"] * batch.num_rows
    return f'{{"rows":[{",".join(rows)}]}}'.encode()


def _fields(name: str, array: Any) -> _Texts:
    return [None if text is None else name + text for text in _texts(array)]


def _texts(array: Any) -> _Texts:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _texts(array.dictionary_decode())
    if pa.types.is_struct(kind):
        return _structs(array)
    if pa.types.is_map(kind):
        return _maps(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array)
    values, write = _scalars(array)
    return [None if value is None else write(value) for value in values]


def _scalars(array: Any) -> tuple[list[Any], Callable[[Any], str]]:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.to_pylist(), lambda value: json.dumps(value, ensure_ascii=False)
    if pa.types.is_boolean(kind):
        return array.to_pylist(), lambda value: "true" if value else "false"
    if pa.types.is_integer(kind):
        return array.to_pylist(), str
    if pa.types.is_floating(kind):
        # As texts: the shortest that mean the same number at the column's own width.
        return array.cast(pa.string()).to_pylist(), _float
    if pa.types.is_decimal(kind):
        return array.to_pylist(), lambda value: format(value, "f")
    if pa.types.is_timestamp(kind):
        return _numbers(array), lambda value: f'"{_timestamp(value, kind.unit, kind.tz)}"'
    if pa.types.is_duration(kind):
        return _numbers(array), lambda value: f'"{_duration(value, kind.unit)}"'
    if pa.types.is_date(kind):
        is_day = pa.types.is_date32(kind)
        return array.to_pylist(), lambda value: f'"{value.isoformat()}{"" if is_day else "T00:00:00"}"'
    if pa.types.is_time(kind):
        return _numbers(array), lambda value: f'"{_timestamp(value, kind.unit, None)[11:]}"'
    if pa.types.is_interval(kind):
        return array.to_pylist(), lambda value: f'"{_interval(value)}"'
    if _is_bytes(kind):
        return array.to_pylist(), lambda value: f'"{value.hex()}"'
    return array.to_pylist(), lambda value: json.dumps(value, ensure_ascii=False, default=str)


def _is_bytes(kind: Any) -> bool:
    tests = ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view")
    return any(getattr(pa.types, test)(kind) for test in tests)


def _numbers(array: Any) -> list[int | None]:
    """Times as counts of their unit: Python's own types stop at microseconds and the year 9999."""
    width = pa.int32() if array.type.bit_width == 32 else pa.int64()
    return array.view(width).to_pylist()


def _structs(array: Any) -> _Texts:
    names = [f"{json.dumps(array.type.field(index).name)}:" for index in range(array.type.num_fields)]
    fields = [_texts(field) for field in array.flatten()]
    out: _Texts = []
    for index, is_valid in enumerate(array.is_valid().to_pylist()):
        members = [name + text for name, field in zip(names, fields, strict=True) if (text := field[index]) is not None]
        out.append(f"{{{','.join(members)}}}" if is_valid else None)
    return out


def _lists(array: Any) -> _Texts:
    members = iter(_texts(array.flatten()))
    sizes = array.value_lengths().to_pylist()
    return [None if size is None else f"[{','.join([next(members) or 'null' for _ in range(size)])}]" for size in sizes]


def _maps(array: Any) -> _Texts:
    if not (pa.types.is_string(array.type.key_type) or pa.types.is_large_string(array.type.key_type)):
        key_type = str(array.type.key_type).capitalize()
        raise TypeError(f"Arrow error: Json error: Only UTF8 keys supported by JSON MapArray Writer: got {key_type}")
    keys, values, offsets = _texts(array.keys), _texts(array.items), array.offsets.to_pylist()
    out: _Texts = []
    for index, is_valid in enumerate(array.is_valid().to_pylist()):
        places = range(offsets[index], offsets[index + 1])
        members = [f"{keys[place]}:{values[place]}" for place in places if values[place] is not None]
        out.append(f"{{{','.join(members)}}}" if is_valid else None)
    return out


def _float(text: str) -> str:
    if not math.isfinite(float(text)):
        return "null"
    return text if "." in text or "e" in text else f"{text}.0"


def _timestamp(count: int, unit: str, zone: str | None) -> str:
    """RFC 3339 with as many of 0, 3, 6 or 9 decimals as it takes; without an offset if there is no time zone."""
    seconds, fraction = divmod(count, _PER_SECOND[unit])
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{count}{unit}"  # outside the years 1 to 9999, where nothing of ours is
    offset = ""
    if zone is not None:
        moment = moment.astimezone(_zone(zone))
        away = moment.strftime("%z")
        offset = "Z" if away == "+0000" else f"{away[:3]}:{away[3:]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{_decimals(fraction, unit)}{offset}"


def _zone(name: str) -> Any:
    if name[:1] in "+-":
        return datetime.strptime(name, "%z").tzinfo
    return ZoneInfo(name)


def _decimals(fraction: int, unit: str) -> str:
    if not fraction:
        return ""
    digits = f"{fraction:0{_DIGITS[unit]}d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}"


def _duration(count: int, unit: str) -> str:
    """`PT86400S`, `PT0.5S`, `-PT1S`; `P0D` for none."""
    if not count:
        return "P0D"
    seconds, fraction = divmod(abs(count), _PER_SECOND[unit])
    digits = f"{fraction:0{_DIGITS[unit]}d}".rstrip("0") if fraction else ""
    return f"{'-' if count < 0 else ''}PT{seconds}{'.' + digits if digits else ''}S"


def _interval(value: Any) -> str:
    """`1 mons 2 days 3 hours 4.500000000 secs`."""
    parts: list[str] = []
    if value.months:
        parts.append(f"{value.months} mons")
    if value.days:
        parts.append(f"{value.days} days")
    sign = -1 if value.nanoseconds < 0 else 1
    seconds, nanoseconds = divmod(abs(value.nanoseconds), _PER_SECOND["ns"])
    for size, name in ((3600, "hours"), (60, "mins")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{sign * count} {name}")
    if seconds or nanoseconds:
        mantissa = f"{seconds}.{nanoseconds:09d}" if nanoseconds else f"{seconds}.000000000"
        parts.append(f"{'-' if sign < 0 else ''}{mantissa} secs")
    return " ".join(parts) or "0 secs"
