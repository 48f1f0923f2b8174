"""Bytes of a page to text, by what it declares, and nevertheless when that is wrong."""

from __future__ import annotations

import codecs
import re

import msgspec

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_HTTP_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_META_CHARSET = re.compile(rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE)
# The standard looks at 1024 bytes; real pages put scripts before their meta.
_META_WITHIN_BYTES = 8_192
# What browsers take these labels for.
_AS_BROWSERS_DO = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
}
_NO_TEXT_ENCODING = frozenset(
    {"utf-7", "idna", "punycode", "raw_unicode_escape", "unicode_escape", "mbcs", "undefined"}
)


class Decoded(msgspec.Struct, frozen=True):
    text: str
    charset: str
    """The one used, by its Python name."""
    source: str
    """Who said so: `bom`, `http`, `meta`, `default`, or `guess` when what was declared does not fit the bytes."""


def python_charset(label: str) -> str | None:
    """The codec for a declared charset; None for a name nobody knows."""
    try:
        info = codecs.lookup(label.strip().lower())
    except (LookupError, ValueError):
        return None
    if info.name in _NO_TEXT_ENCODING or not getattr(info, "_is_text_encoding", True):
        return None
    return _AS_BROWSERS_DO.get(info.name, info.name)


def declared_charset(body: bytes, content_type: str | None) -> tuple[str, str] | None:
    """(codec, source) as byte-order mark, Content-Type or the page itself declare it, in this order."""
    for mark, charset in _BOMS:
        if body.startswith(mark):
            return charset, "bom"
    if content_type and (match := _HTTP_CHARSET.search(content_type)) and (name := python_charset(match[1])):
        return name, "http"
    head = body[:_META_WITHIN_BYTES]
    match = _META_CHARSET.search(head) or _XML_ENCODING.search(head)
    if match and (name := python_charset(match[1].decode("ascii", "replace"))):
        # A meta that can be read as ASCII is not UTF-16, whatever it says.
        return ("utf-8" if name.startswith("utf-16") else name), "meta"
    return None


def decode(body: bytes, content_type: str | None = None) -> Decoded:
    """`body` as text. Never fails: as declared, unless the bytes speak against it; what fits nowhere is replaced."""
    charset, source = declared_charset(body, content_type) or ("utf-8", "default")
    if source == "bom":
        return Decoded(_without_mark(body.decode(charset, "replace")), charset, source)
    try:
        # Text of any other charset is next to never valid UTF-8 by accident.
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        is_as_declared = charset == "utf-8" or body.isascii()
        return Decoded(
            _without_mark(text), charset if is_as_declared else "utf-8", source if is_as_declared else "guess"
        )
    if charset != "utf-8":
        try:
            return Decoded(body.decode(charset, "replace" if charset == "cp1252" else "strict"), charset, source)
        except (UnicodeDecodeError, LookupError):
            charset, source = "utf-8", "guess"
    # UTF-8 with a few foreign bytes or cut in a character stays UTF-8; otherwise it never was.
    text = _without_mark(body.decode("utf-8", "replace"))
    damaged_count = text.count("\ufffd")
    sound_count = sum(1 for character in text if ord(character) > 127) - damaged_count
    if damaged_count > sound_count:
        return Decoded(body.decode("cp1252", "replace"), "cp1252", "guess")
    return Decoded(text, charset, source)


def _without_mark(text: str) -> str:
    return text.removeprefix("\ufeff")
