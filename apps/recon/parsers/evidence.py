"""What a service said of itself, from the texts that nmap's scripts leave: banners and TLS certificates."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime

from apps.recon.model import Certificate

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SUBJECT = re.compile(r"^Subject: (.*)$", re.MULTILINE)
# The attributes are divided by slashes, which names may hold as well; the next attribute has an equals sign.
_COMMON_NAME = re.compile(r"(?:^|/)commonName=(.*?)(?=/[A-Za-z]+=|$)")
_NAMES = re.compile(r"^Subject Alternative Name: (.*)$", re.MULTILINE)
_DATES = re.compile(r"^Not valid (before|after): +(\S+)", re.MULTILINE)

TEXT_MAX = 64 * 1024
"""Characters of a banner that count; nmap itself stops far earlier."""

NAMES_MAX = 100


def read_banner(text: str | None) -> str | None:
    """A banner, without surrounding blanks, lone surrogates and null bytes, which the database could not give back.

    masscan escapes null bytes of binary greetings, MySQL's for one, so they do come.
    """
    banner = (text or "").strip()[:TEXT_MAX]
    return banner.encode("utf-8", "replace").decode().replace("\0", "?") or None


def read_certificate(text: str | None) -> Certificate | None:
    """The certificate in the output of nmap's `ssl-cert`, or None when the output has no PEM block: without it there
    is nothing to know the certificate by."""
    block = _PEM.search(text or "")
    if text is None or block is None:
        return None
    try:
        der = base64.b64decode("".join(block[1].split()), validate=True)
    except binascii.Error:
        return None
    subject = _SUBJECT.search(text)
    common_name = _COMMON_NAME.search(subject[1]) if subject else None
    names = _NAMES.search(text)
    dates = {word: _date(moment) for word, moment in _DATES.findall(text)}
    return Certificate(
        sha256=hashlib.sha256(der).hexdigest(),
        cn=common_name[1].strip()[:256] or None if common_name else None,
        sans=tuple(_alternatives(names[1]) if names else ()),
        not_before=dates.get("before"),
        not_after=dates.get("after"),
    )


def _alternatives(text: str) -> list[str]:
    entries = [entry.strip() for entry in text.split(",")]
    return [entry.partition(":")[2][:256] for entry in entries if entry.startswith(("DNS:", "IP Address:"))][:NAMES_MAX]


def _date(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first or last day of the calendar, in another zone
        return None
