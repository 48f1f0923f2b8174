"""Structured data: JSON-LD, microdata and RDFa Lite, flattened to items of schema.org. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from selectolax.lexbor import LexborNode

from apps.leads.web.document import Document, attribute, clean, visible_text
from apps.leads.web.types import Address, Organization, StructuredData

Item = dict[str, Any]
"""`@type` is a list of names without `http://schema.org/`; other values are texts, items, or lists of them."""

_ITEMS_MAX = 500
ADDRESS_CHARACTERS_MIN = 8
_DEPTH_MAX = 12
_PEOPLE = ("founder", "founders", "owner", "employee", "member", "author", "creator")
# What only describes the page, never the business.
_NO_BUSINESS = frozenset(
    [
        "WebSite",
        "WebPage",
        "BreadcrumbList",
        "ListItem",
        "SearchAction",
        "ImageObject",
        "Person",
        "PostalAddress",
        "GeoCoordinates",
        "Offer",
        "Product",
        "AggregateRating",
        "Review",
        "Rating",
        "Article",
        "BlogPosting",
        "NewsArticle",
        "ItemList",
        "CollectionPage",
        "ContactPage",
        "AboutPage",
        "FAQPage",
        "Question",
        "Answer",
        "OpeningHoursSpecification",
        "ContactPoint",
        "Service",
        "Event",
        "Place",
        "VideoObject",
        "SiteNavigationElement",
        "WPHeader",
        "WPFooter",
        "WPSideBar",
        "EntryPoint",
        "ReadAction",
        "Thing",
        "Country",
        "City",
        "AdministrativeArea",
        "QuantitativeValue",
    ]
)


def structured_items(document: Document) -> tuple[list[Item], list[str], int]:
    """(items outermost first, formats found, JSON-LD blocks that are broken)."""
    items: list[Item] = []
    formats: list[str] = []
    error_count = 0
    blocks = [node for node in document.nodes("script[type]") if "ld+json" in attribute(node, "type").lower()]
    for block in blocks:
        loaded = _loaded(block.text() or "")
        if loaded is None:
            error_count += 1
        else:
            items += list(_json_items(loaded, 0))
    if items:
        formats.append("json-ld")
    for name, scope, kind, prop in (
        ("microdata", "itemscope", "itemtype", "itemprop"),
        ("rdfa", "typeof", "typeof", "property"),
    ):
        found = [_node_item(node, scope, kind, prop, 0) for node in document.nodes(f"[{scope}]")[:_ITEMS_MAX]]
        found = [item for item in found if item["@type"]]
        if found:
            items += found
            formats.append(name)
    return items[:_ITEMS_MAX], formats, error_count


def _loaded(text: str) -> Any:
    """JSON as sites write it: in a comment or CDATA, with line breaks in strings. None when it is broken."""
    body = re.sub(r"^\s*(?:<!--|//\s*<!\[CDATA\[|<!\[CDATA\[)|(?:-->|//\s*\]\]>|\]\]>)\s*$", "", text).strip()
    try:
        return json.loads(body.rstrip(";"), strict=False)
    except (ValueError, RecursionError):
        return None


def _json_items(value: Any, depth: int) -> Iterator[Item]:
    """The items of a JSON-LD block, those inside others and in `@graph` too."""
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, list):
        for one in value[:_ITEMS_MAX]:
            yield from _json_items(one, depth + 1)
    elif isinstance(value, dict):
        if "@type" in value:
            yield {**value, "@type": type_names(value["@type"])}
        for one in value.values():
            if isinstance(one, dict | list):
                yield from _json_items(one, depth + 1)


def type_names(value: Any) -> list[str]:
    """`http://schema.org/Bakery`, `schema:Bakery`, lists of them -> `Bakery`."""
    values = value if isinstance(value, list) else str(value or "").split()
    names = [re.split(r"[/#:]", one.rstrip("/"))[-1][:60] for one in values if isinstance(one, str)]
    return [name for name in names if name[:1].isalpha()]


def _node_item(node: LexborNode, scope: str, kind: str, prop: str, depth: int) -> Item:
    """The item that a microdata or RDFa element begins. Properties of items inside stay with those."""
    item: Item = {"@type": type_names(attribute(node, kind))}
    stack = [child] if (child := node.child) is not None and depth < _DEPTH_MAX else []
    while stack:
        current = stack.pop()
        if current.next is not None:
            stack.append(current.next)
        if not current.is_element_node:
            continue
        name = attribute(current, prop)
        is_item = scope in current.attributes
        if name:
            value = _node_item(current, scope, kind, prop, depth + 1) if is_item else _node_value(current)
            for one in name.split():
                _add(item, one.rpartition(":")[2], value)
        if not is_item and current.child is not None:
            stack.append(current.child)
    return item


def _add(item: Item, name: str, value: Any) -> None:
    if name not in item:
        item[name] = value
    elif isinstance(item[name], list):
        item[name].append(value)
    else:
        item[name] = [item[name], value]


def _node_value(node: LexborNode) -> str:
    for name in ("content", "datetime", "href", "src"):
        if attribute(node, name):
            return attribute(node, name)[:500]
    return visible_text(node)


def values(item: Item, name: str) -> list[Any]:
    """The values of a property, as a list whatever it was."""
    value = item.get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def text_of(value: Any) -> str | None:
    """A value as text; of an item its name."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("@value")
    if isinstance(value, list):
        value = value[0] if value else None
    return clean(str(value), 300) or None if isinstance(value, str | int | float) else None


def _first_text(item: Item, *names: str) -> str | None:
    return next((text for name in names for value in values(item, name) if (text := text_of(value))), None)


def _number(value: Any) -> float | None:
    try:
        number = float(str(value).replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def business_items(items: list[Item]) -> list[Item]:
    """Those that describe an organisation: any type that is not one of those that describe something else."""
    return [item for item in items if any(name not in _NO_BUSINESS for name in item["@type"])]


def organization(items: list[Item]) -> Organization | None:
    """What the items say of the business together; the first that says something wins."""
    businesses = [item for item in business_items(items) if item.get("name") or item.get("telephone")]
    if not businesses:
        return None
    result = Organization(type=next(name for name in businesses[0]["@type"] if name not in _NO_BUSINESS))
    for item in businesses:
        result.name = result.name or _first_text(item, "name", "legalName")
        result.telephone = result.telephone or _first_text(item, "telephone")
        result.email = result.email or _first_text(item, "email")
        result.price_range = result.price_range or _first_text(item, "priceRange")
        result.opening_hours += [text for value in values(item, "openingHours") if (text := text_of(value))]
        result.same_as += [text for value in values(item, "sameAs") if (text := text_of(value))]
        for rating in values(item, "aggregateRating"):
            if isinstance(rating, dict):
                count = _number(_first_text(rating, "reviewCount", "ratingCount"))
                result.rating = result.rating or _number(_first_text(rating, "ratingValue"))
                result.review_count = result.review_count or (int(count) if count is not None else None)
    result.opening_hours = result.opening_hours[:14]
    result.same_as = list(dict.fromkeys(result.same_as))[:20]
    return result


def telephone_texts(items: list[Item]) -> list[tuple[str, bool]]:
    """(number as written, is fax) of all items, contact points too."""
    return [
        (text, name == "faxNumber")
        for item in items
        for name in ("telephone", "faxNumber")
        for value in values(item, name)
        if (text := text_of(value))
    ]


def email_texts(items: list[Item]) -> list[str]:
    return [
        re.sub(r"^mailto:", "", text, flags=re.IGNORECASE)
        for item in items
        for value in values(item, "email")
        if (text := text_of(value))
    ]


def addresses(items: list[Item]) -> list[Address]:
    """Postal addresses, one per text."""
    found: dict[str, Address] = {}
    for item in items:
        if "PostalAddress" in item["@type"]:
            street, code = _first_text(item, "streetAddress"), _first_text(item, "postalCode")
            city, country = _first_text(item, "addressLocality"), _first_text(item, "addressCountry")
            parts = [street, " ".join(part for part in (code, city) if part), country]
            text = ", ".join(part for part in parts if part)
        else:
            plain = next((value for value in values(item, "address") if isinstance(value, str)), None)
            street = code = city = country = None
            text = clean(plain, 200)
        if len(text) >= ADDRESS_CHARACTERS_MIN:
            found.setdefault(text, Address(text, "structured", street, code, city, country))
    return list(found.values())[:5]


def people(items: list[Item]) -> list[tuple[str, str]]:
    """(name, role) of persons that items give as founder, owner and so on; a Person alone by its jobTitle."""
    found: list[tuple[str, str]] = []
    for item in items:
        for role in _PEOPLE:
            for value in values(item, role):
                if name := text_of(value):
                    title = _first_text(value, "jobTitle") if isinstance(value, dict) else None
                    found.append((name, title or role.rstrip("s")))
        if (
            "Person" in item["@type"]
            and (name := _first_text(item, "name"))
            and (title := _first_text(item, "jobTitle"))
        ):
            found.append((name, title))
    return list(dict.fromkeys(found))


def structured_data(items: list[Item], formats: list[str], error_count: int) -> StructuredData:
    types = sorted({name for item in items for name in item["@type"]})
    return StructuredData(formats, types[:40], len(items), error_count, organization(items))
