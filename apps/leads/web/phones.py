"""Telephone numbers of a page, and whose country a number without + belongs to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import phonenumbers
from phonenumbers import Leniency, NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberMatcher

from apps.leads.web.document import Document, attribute, clean, host_of
from apps.leads.web.types import Phone

PHONES_MAX = 30
# Where a number may be called: a page of one business names few countries.
_TLD_COUNTRIES = {"uk": "GB", "eu": None, "io": None, "co": None, "me": None, "tv": None, "ai": None, "cc": None}
_LANGUAGE_COUNTRIES = {"en": "US", "nl": "NL", "de": "DE", "fr": "FR", "es": "ES", "it": "IT", "pl": "PL", "pt": "PT"}
_POSTCODES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("GB", re.compile(r"\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b")),
    ("CA", re.compile(r"\b[ABCEGHJ-NPRSTVXY]\d[A-Z]\s?\d[A-Z]\d\b")),
    ("US", re.compile(r"\b[A-Z]{2}\.?,?\s+\d{5}(?:-\d{4})?\b")),
    ("NL", re.compile(r"\b[1-9]\d{3}\s?[A-Z]{2}\b")),
)
_FAX_BEFORE = re.compile(
    r"(?:\bf(?=\s*[.:])|fax|facsimile|t[ée]l[ée]copie(?:ur)?)[\s.:)\]|–-]*(?:nr|no|number)?[\s.:#|–-]*$", re.IGNORECASE
)
_FAX_LINE = re.compile(r"^(?:fax|facsimile|t[ée]l[ée]copie(?:ur)?)\b[\s.:|-]*$", re.IGNORECASE)
_LABEL_BEFORE = re.compile(
    r"(?:\btel|phone|t[ée]l[ée]phone|telefoon|telefon|\bcall|gsm|mobile?|mobiel|handy|local|toll[- ]?free|hotline|"
    r"appelez|\bbel)\w*[\s.:)\]#|–-]*$",
    re.IGNORECASE,
)
# Digits with one or two blanks put between them against robots; only believed after a label.
_PIECES = re.compile(r"\+?\(?\d[\d\s().-]{7,24}\d")
# Shapes that are written in few places, for pages that give no other hint of their country.
_NORTH_AMERICAN = re.compile(
    r"(?<![\d.-])(?:\+?1[-. ])?(?:\([2-9]\d{2}\)\s?|[2-9]\d{2}[-. ])[2-9]\d{2}[-. ]\d{4}(?!\d)"
)
_BRITISH = re.compile(r"(?<![\d+])(?:0800|08\d{2}|020\d?|01\d{2,3}|07\d{3})[ -](?:\d{2,4}[ -]?){2,4}")
_HOURS = re.compile(r"\d{1,2}[.:]\d{2}\s*(?:[-–]|to|tot)\s*\d{1,2}[.:]\d{2}")
# What looks like a telephone number and is none.
_OTHER_BEFORE = re.compile(
    r"(?:\biban|\bbic|\bvat|\bbtw|\btva|\bust|\bsiret|\bsiren|\brcs|\bkvk|\bkbo|\bbce|\bisbn|\bean|\bupc|\bsku|\blic\w*|"
    r"\breg\w*|\border|\bref\w*|\bpart|\bitem|\bmodel|\baccount|\brekening\w*|\bchamber|\bcompany n\w*)"
    r"[\s.:#&'a-z-]{0,20}$",
    re.IGNORECASE,
)


def country_of_host(url: str) -> str | None:
    """The country of a top-level domain, where it means one."""
    tld = host_of(url).rpartition(".")[2]
    if tld in _TLD_COUNTRIES:
        return _TLD_COUNTRIES[tld]
    code = tld.upper()
    return code if code in phonenumbers.SUPPORTED_REGIONS else None


def guess_country(document: Document, stated: Iterable[str | None] = ()) -> str | None:
    """Whose numbers the page writes without a country code.

    Args:
        stated: Countries that structured data names, two letters or not.
    Returns:
        The first that says something: top-level domain, structured data, region of `<html lang>`, postcodes in the
        text, language. None when nothing does.
    """
    if country := country_of_host(document.url):
        return country
    for text in stated:
        if text and text.strip().upper() in phonenumbers.SUPPORTED_REGIONS:
            return text.strip().upper()
    root = document.tree.css_first("html")
    language, _, region = (attribute(root, "lang") if root is not None else "").replace("_", "-").partition("-")
    counts = {country: len(pattern.findall(document.text)) for country, pattern in _POSTCODES}
    if any(counts.values()):
        return max(counts, key=lambda country: counts[country])
    if region.upper() in phonenumbers.SUPPORTED_REGIONS:
        return region.upper()
    if not language or language.lower() == "en":
        shapes = {"US": len(_NORTH_AMERICAN.findall(document.text)), "GB": len(_BRITISH.findall(document.text))}
        if any(shapes.values()):
            return max(shapes, key=lambda country: shapes[country])
    return _LANGUAGE_COUNTRIES.get(language.lower())


def parsed(text: str, country: str | None) -> str | None:
    """`text` as E.164 when it is a number that can exist, else None."""
    try:
        number = phonenumbers.parse(text, country)
    except NumberParseException:
        return None
    return e164(number) if phonenumbers.is_valid_number(number) else None


def e164(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def phones_in_links(document: Document, country: str | None) -> list[Phone]:
    """What `tel:`, `callto:` and WhatsApp links hold."""
    found: list[Phone] = []
    for address, text in document.links:
        scheme, _, rest = address.partition(":")
        is_call = scheme.lower() in {"tel", "callto"}
        if is_call:
            raw = unquote(rest).partition(";")[0].partition("?")[0]
        elif match := re.match(r"https?://(?:wa\.me/|(?:api|web)\.whatsapp\.com/send/?\?phone=)\+?(\d{8,15})", address):
            raw = f"+{match[1]}"
        else:
            continue
        number = parsed(raw, country)
        # Written as 0032..., or with the country code and nothing before it.
        if number is None and is_call and (digits := re.sub(r"\D", "", raw)):
            number = parsed(f"+{digits.removeprefix('00')}", None)
        if number is not None:
            is_fax = bool(re.search(r"\bfax", text, re.IGNORECASE))
            found.append(Phone(number, clean(text, 60) or raw, "tel", is_fax=is_fax, page_url=document.url))
    return found


def phones_in_text(document: Document, country: str | None) -> list[Phone]:
    """Numbers that a reader sees. A number counts as fax when the word stands before it."""
    found: list[Phone] = []
    for index, line in enumerate(document.lines):
        if sum(character.isdigit() for character in line) < 7:
            continue
        before = document.lines[index - 1] if index else ""
        taken: list[tuple[int, int]] = []
        for match in PhoneNumberMatcher(line, country, leniency=Leniency.VALID):
            label = line[: match.start]
            if _OTHER_BEFORE.search(label[-40:]) or _HOURS.fullmatch(match.raw_string.strip()):
                continue
            if _is_inside_a_code(line, match.start, match.end):
                continue
            taken.append((match.start, match.end))
            is_fax = bool(_FAX_BEFORE.search(label)) or (not label.strip() and bool(_FAX_LINE.match(before)))
            found.append(Phone(e164(match.number), match.raw_string, "text", is_fax=is_fax, page_url=document.url))
        found += _phones_in_pieces(line, country, taken, document.url)
        if len(found) >= PHONES_MAX:
            break
    return found


def _phones_in_pieces(line: str, country: str | None, taken: Sequence[tuple[int, int]], url: str) -> list[Phone]:
    """Numbers written in pieces (`3 16-69 1-85 19`), which the matcher does not take for one."""
    found: list[Phone] = []
    for match in _PIECES.finditer(line):
        label = line[: match.start()]
        is_fax = bool(_FAX_BEFORE.search(label))
        if any(start < match.end() and match.start() < end for start, end in taken):
            continue
        is_whole = _NORTH_AMERICAN.fullmatch(match[0].strip()) is not None
        if not is_fax and not is_whole and not _LABEL_BEFORE.search(label):
            continue
        if (number := parsed(re.sub(r"[^\d+]", "", match[0]), country)) is not None:
            found.append(Phone(number, match[0], "text", is_fax=is_fax, page_url=url))
    return found


def _is_inside_a_code(line: str, start: int, end: int) -> bool:
    """Part of something longer: an address of a page, a price, a product code."""
    before, after = line[max(start - 1, 0) : start], line[end : end + 1]
    if before in {"=", "_", "#", "$", "€", "£"} or after in {"_", "=", "%", "€"}:
        return True
    return before == "/" and not line[: start - 1].rstrip()[-1:].isdigit()


def merge_phones(phones: Iterable[Phone]) -> list[Phone]:
    """One per number, first seen first. What is a telephone anywhere, or by a `tel:` link, is no fax."""
    merged: dict[str, Phone] = {}
    for phone in phones:
        known = merged.get(phone.number)
        if known is None:
            merged[phone.number] = phone
        elif known.is_fax and not phone.is_fax:
            merged[phone.number] = Phone(known.number, known.text, known.source, is_fax=False, page_url=known.page_url)
    return list(merged.values())[:PHONES_MAX]
