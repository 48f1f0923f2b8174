"""One page to facts: all readers over one document, put together. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from apps.leads.web import facts, people, structured
from apps.leads.web.document import Document, attribute, visible_text
from apps.leads.web.emails import emails_in, merge_emails, normal
from apps.leads.web.phones import guess_country, merge_phones, parsed, phones_in_links, phones_in_text
from apps.leads.web.scores import ai_readability, seo
from apps.leads.web.signatures import CHAT, FORM_SERVICES, TRACKERS, Marks, booking, social_profiles, technology
from apps.leads.web.types import Access, Address, Contact, Email, Phone, Signal, SiteScan

KEPT_HEADERS = (
    "server",
    "x-powered-by",
    "content-type",
    "content-encoding",
    "content-length",
    "cache-control",
    "expires",
    "etag",
    "last-modified",
    "vary",
    "strict-transport-security",
    "content-security-policy",
    "x-frame-options",
    "x-content-type-options",
    "referrer-policy",
    "permissions-policy",
    "x-robots-tag",
)
HEADER_CHARACTERS_MAX = 500
# What a page is for, by its address or the text of the link to it. Order: which to read first when few may be read.
PAGE_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "legal",
        re.compile(
            r"impressum|imprint|mentions?[-_ ]?l[ée]gales?|legal[-_ ]?(?:notice|information|disclosure)|colofon|"
            r"juridische|wettelijke|informations[-_ ]?l[ée]gales",
            re.IGNORECASE,
        ),
    ),
    ("contact", re.compile(r"contact|kontakt|nous[-_ ]?joindre|bereik|find[-_ ]us", re.IGNORECASE)),
    (
        "about",
        re.compile(
            r"about|over[-_ ]?ons|wie[-_ ](?:zijn|we)|qui[-_ ]sommes|[àa][-_ ]propos|[üu]e?ber[-_ ]?uns|our[-_ ](?:story|team)|"
            r"(?:^|/|\b)team\b|notre[-_ ](?:histoire|[ée]quipe)|ons[-_ ](?:verhaal|team)",
            re.IGNORECASE,
        ),
    ),
    ("services", re.compile(r"\bservices?\b|diensten|prestations|leistungen|aanbod", re.IGNORECASE)),
    ("booking", re.compile(r"booking|appointment|reserv|rendez[-_ ]?vous|afspraak|termin", re.IGNORECASE)),
)
_NO_PAGE = re.compile(r"\.(?:pdf|jpe?g|png|gif|docx?|xlsx?|zip|mp[34]|ics|vcf)(?:[?#]|$)", re.IGNORECASE)
# An address in running text: street with number, then postcode and town, on one or two lines.
_ADDRESS_LINES: tuple[re.Pattern[str], ...] = (
    re.compile(r"\b\d{1,5} [A-Z][\w .'-]{2,40},? (?:[A-Z][\w .'-]{2,30},? )?[A-Z]{2},? \d{5}(?:-\d{4})?\b"),
    re.compile(r"\b[A-Z][\w .'-]{2,40} \d{1,4}\s?[a-z]?(?:,| -| \||) ?(?:B-|F-|D-|L-|NL-)?\d{4,5}(?: ?[A-Z]{2})? [A-Z][\w'-]{2,30}"),
    re.compile(r"\b\d{1,4},? (?:rue|avenue|av\.|boulevard|place|chemin|route|quai) [\w .'-]{2,40},? (?:B-|F-|L-)?\d{4,5} [A-Z][\w'-]{2,30}"),
)  # fmt: skip


def kept_headers(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Those worth keeping, names in small letters, values cut."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in KEPT_HEADERS:
            found.setdefault(name, value[:HEADER_CHARACTERS_MAX])
    return found


def insecure_cookie_count(headers: Sequence[tuple[str, str]], *, has_tls: bool) -> int:
    """Cookies that lack `HttpOnly`, or `Secure` on a TLS page."""
    count = 0
    for name, value in headers:
        if name == "set-cookie":
            flags = {part.strip().lower() for part in value.split(";")[1:]}
            count += "httponly" not in flags or (has_tls and "secure" not in flags)
    return count


def page_links(document: Document) -> dict[str, str]:
    """Kind of page -> its address, for pages of the same site; the first link of a kind counts."""
    found: dict[str, str] = {}
    own = document.url.split("#")[0].rstrip("/")
    for href, text in document.links:
        url = document.absolute(href) if href and href[:1] != "#" else None
        if url is None or not document.is_own(url) or _NO_PAGE.search(url):
            continue
        url = url.split("#")[0]
        if url.rstrip("/") == own:
            continue
        path = url.split("//", 1)[-1].partition("/")[2]
        for kind, pattern in PAGE_KINDS:
            if kind not in found and (pattern.search(text[:60]) or pattern.search(path)):
                found[kind] = url
                break
    return {kind: found[kind] for kind, _ in PAGE_KINDS if kind in found}


def contact_facts(document: Document, items: list[structured.Item], marks: Marks, country: str | None) -> Contact:
    """Telephones, e-mail addresses, forms and postal addresses of one page, the surest source first."""
    stated_phones = [
        Phone(number, text, "structured", is_fax=is_fax, page_url=document.url)
        for text, is_fax in structured.telephone_texts(items)
        if (number := parsed(text, country))
    ]
    stated_emails = [
        Email(address, "structured", document.url)
        for text in structured.email_texts(items)
        if (address := normal(text))
    ]
    page_forms = facts.forms(document)
    return Contact(
        phones=merge_phones([*phones_in_links(document, country), *stated_phones, *phones_in_text(document, country)]),
        emails=merge_emails([*emails_in(document), *stated_emails]),
        forms=page_forms,
        has_form=any(form.kind == "contact" for form in page_forms) or bool(marks.find(FORM_SERVICES)),
        addresses=[*structured.addresses(items), *addresses_in_text(document)][:5],
    )


def addresses_in_text(document: Document) -> list[Address]:
    """Postal addresses that a reader sees, as one line."""
    nodes = [visible_text(node) for node in document.nodes("address")[:3]]
    pairs = [f"{first} {second}" for first, second in pairwise([*document.lines, ""])]
    for text in [*nodes, *document.lines, *pairs]:
        if len(text) < 400 and any(character.isdigit() for character in text):
            for pattern in _ADDRESS_LINES:
                if match := pattern.search(text):
                    return [Address(match[0][:200], "text")]
    return []


def read_page(document: Document, access: Access, *, page_kind: str = "home", country: str | None = None) -> SiteScan:
    """All facts of one page, without scores: those are of the whole site (`with_scores`).

    Args:
        country: Where the business is known to be, two letters; guessed from the page when None.
    """
    items, formats, error_count = structured.structured_items(document)
    marks = Marks(document)
    if country is None:
        country = guess_country(document, [one.country for one in structured.addresses(items)])
    page_head = facts.head(document)
    data = structured.structured_data(items, formats, error_count)
    contact = contact_facts(document, items, marks, country)
    contact.page_url = document.url if page_kind == "contact" else page_links(document).get("contact")
    candidates = people.candidates_in_items(items, document.url) + people.candidates_in_text(document, page_kind)
    access.charset, access.charset_source = document.decoded.charset, document.decoded.source
    return SiteScan(
        access=access,
        country=country,
        head=page_head,
        structure=facts.structure(document),
        contact=contact,
        social=social_profiles(document, data.organization.same_as if data.organization else []),
        booking=booking(document, marks),
        chat=marks.find(CHAT),
        trackers=marks.find(TRACKERS),
        technology=technology(document, marks, access.headers),
        structured=data,
        text=facts.text(document, page_head),
        resources=facts.resources(document),
        accessibility=facts.accessibility(document),
        owner_candidates=people.rank(candidates),
    )


def merge_page(site: SiteScan, page: SiteScan, page_kind: str) -> None:
    """Add what a further page knows to the scan of its site. What describes the home page itself stays."""
    contact = site.contact
    contact.phones = merge_phones([*contact.phones, *page.contact.phones])
    contact.emails = merge_emails([*contact.emails, *page.contact.emails])
    contact.has_form = contact.has_form or page.contact.has_form
    contact.forms = [*contact.forms, *(one for one in page.contact.forms if one not in contact.forms)][:20]
    known = {one.text for one in contact.addresses}
    contact.addresses = [*contact.addresses, *(one for one in page.contact.addresses if one.text not in known)][:5]
    if page_kind == "contact":
        contact.page_url = page.access.final_url
    site.social = {**page.social, **site.social}
    for name in ("booking", "chat", "trackers", "technology"):
        merged: dict[str, Signal] = {}
        for signal in [*getattr(site, name), *getattr(page, name)]:
            merged.setdefault(signal.name, signal)
        # A real booking service on a further page says more than a link to that page.
        if name == "booking" and len(merged) > 1:
            merged.pop("own", None)
        setattr(site, name, list(merged.values()))
    site.text.services = list(dict.fromkeys([*site.text.services, *page.text.services]))[:20]
    site.owner_candidates = people.rank([*site.owner_candidates, *page.owner_candidates])


def with_scores(scan: SiteScan) -> SiteScan:
    """The same scan with both scores, from what it holds now."""
    scan.ai_readability = ai_readability(scan)
    scan.seo = seo(scan)
    return scan


def looks_like_html(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether this is a page: by Content-Type, or by its beginning where that says nothing."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        return True
    start = body[:1_000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_markup = start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")) or b"<html" in start
    return is_markup and kind in {"", "text/plain", "application/octet-stream", "text/xml", "application/xml"}


def base_url_of_file(document: Document) -> str:
    """The address a saved page had: its `<base>`, its canonical link or `og:url`; empty when it says nothing."""
    for selector, name in (
        ("base[href]", "href"),
        ("link[rel~=canonical i]", "href"),
        ("meta[property='og:url']", "content"),
    ):
        node = document.tree.css_first(selector)
        if node is not None and attribute(node, name).startswith(("http://", "https://")):
            return attribute(node, name)
    return ""
