"""CPE 2.3 names of what runs on a port: the scanner's own, or made from product and version.

Pure. Names are written in the formatted-string form of the CPE 2.3 naming specification:
`cpe:2.3:a:openbsd:openssh:5.9:p1:*:*:*:*:*:*`. `*` is "any" or "not known", `-` is "has none".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote

import msgspec

from apps.recon.enrich.products import PRODUCTS, RENAMED, Name

ANY, NONE = "*", "-"

Origin = Literal["scanner", "product"]

CONFIDENCE: dict[Origin, float] = {"scanner": 1.0, "product": 0.8}
"""How sure a name is, by what it was made from."""

_SPLIT = re.compile(r"(?<!\\):")
_PLAIN = re.compile(r"[A-Za-z0-9._\-]")
# `5.9p1`, `9.8.1-P1`, `3.0.0-rc1`: the dictionary has the part behind the number as `update`. A single letter
# (`1.0.2k`) belongs to the version.
_UPDATE = re.compile(r"(\d[\d.]*?)[-.]?((?:p|rc|alpha|beta)\d+|alpha|beta)\Z", re.IGNORECASE)
_VERSION = re.compile(r"v?(\d[A-Za-z0-9._+\-]*)")


class NotACpe(ValueError):
    """The text is no CPE name."""


class Cpe(msgspec.Struct, frozen=True, order=True):
    """A CPE name, or a criterion of one; components are unescaped and lower case."""

    part: str
    """`a` application, `o` operating system, `h` hardware."""
    vendor: str
    product: str
    version: str = ANY
    update: str = ANY
    edition: str = ANY
    language: str = ANY
    sw_edition: str = ANY
    target_sw: str = ANY
    target_hw: str = ANY
    other: str = ANY

    def __str__(self) -> str:
        return "cpe:2.3:" + ":".join(_escaped(value) for value in msgspec.structs.astuple(self))

    @property
    def has_version(self) -> bool:
        """Whether it says which version: without one it would match everything ever said about the product."""
        return self.version not in (ANY, NONE)


class FoundCpe(msgspec.Struct, frozen=True):
    """A name, and what it was made from."""

    cpe: Cpe
    origin: Origin


def parse_cpe(text: str) -> Cpe:
    """Parse a CPE 2.3 formatted string, or a CPE 2.2 URI as nmap writes it (`cpe:/a:openbsd:openssh:5.9p1`).

    Raises:
        NotACpe: it is neither.
    """
    if text.startswith("cpe:2.3:"):
        values = [_unescaped(value) for value in _SPLIT.split(text.removeprefix("cpe:2.3:"))]
        if len(values) != 11:
            raise NotACpe(f"{text!r} has {len(values)} components; a CPE 2.3 name has 11")
    elif text.startswith("cpe:/"):
        values = _uri_values(text.removeprefix("cpe:/"))
    else:
        raise NotACpe(f"{text!r} does not begin with cpe:2.3: or cpe:/")
    values = [value.lower() or ANY for value in values]
    if values[0] not in ("a", "o", "h", ANY) or len(values) < 3 or len(values) > 11:
        raise NotACpe(f"{text!r} does not name a part, a vendor and a product")
    return Cpe(*values)


def find_cpes(cpes: Sequence[str], product: str | None, version: str | None) -> list[FoundCpe]:
    """The names of one service: the scanner's own, and if none of them is an application, one made from the product.

    The scanner's platform (`cpe:/o:linux:linux_kernel`) is kept beside it. What cannot be read is passed over.
    """
    found = [FoundCpe(_normalised(cpe), "scanner") for cpe in map(_parsed, cpes) if cpe is not None]
    if not any(each.cpe.part == "a" for each in found):
        derived = from_product(product, version)
        if derived is not None:
            found.append(FoundCpe(derived, "product"))
    return sorted(set(found), key=lambda each: (each.cpe.part != "a", str(each.cpe)))


def from_product(product: str | None, version: str | None) -> Cpe | None:
    """The name for a product as nmap spells it (`Apache httpd`), or None when the product is not in our list."""
    known = PRODUCTS.get(product.strip().lower()) if product else None
    if known is None:
        return None
    name, version_is_the_products = known
    return _named(name, version if version_is_the_products else None)


def split_version(text: str | None) -> tuple[str, str]:
    """Version and update as the dictionary has them: `5.9p1 Debian 5ubuntu1` is (`5.9`, `p1`), nothing is (`*`, `*`)."""
    found = _VERSION.match(text.strip()) if text else None
    if found is None:
        return ANY, ANY
    version = found[1].rstrip(".-_+").lower()
    with_update = _UPDATE.match(version)
    return (with_update[1], with_update[2]) if with_update else (version, ANY)


def _named(name: Name, version: str | None) -> Cpe:
    return Cpe(*name, *split_version(version))


def _parsed(text: str) -> Cpe | None:
    try:
        return parse_cpe(text)
    except NotACpe:
        return None


def _normalised(cpe: Cpe) -> Cpe:
    """As the vulnerability database has it now: renamed vendors, and the update apart from the version."""
    vendor, product = RENAMED.get((cpe.vendor, cpe.product), (cpe.vendor, cpe.product))
    version, update = cpe.version, cpe.update
    if cpe.has_version and update == ANY:
        version, update = split_version(version)
        if version == ANY:  # not a number at all: keep what the scanner said
            version = cpe.version
    return msgspec.structs.replace(cpe, vendor=vendor, product=product, version=version, update=update)


def _uri_values(text: str) -> list[str]:
    values = [unquote(value) for value in text.split(":")]
    if len(values) > 5 and values[5].startswith("~"):  # the packed edition of CPE 2.2: ~edition~sw~target~hw~other
        packed = values[5].split("~")[1:]
        if len(packed) != 5:
            raise NotACpe(f"cpe:/{text!r} has a packed edition of {len(packed)} parts, not 5")
        edition, *extended = packed
        language = values[6] if len(values) > 6 else ""
        values = [*values[:5], edition, language, *extended]
    return values


def _escaped(value: str) -> str:
    if value in (ANY, NONE):
        return value
    return "".join(char if _PLAIN.match(char) else f"\\{char}" for char in value)


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value)
