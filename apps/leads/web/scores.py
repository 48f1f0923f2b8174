"""The two scores of a scan, by the formulas of the specification; every component says why it has its points. Pure."""

from __future__ import annotations

from apps.leads.web.types import Score, ScoreComponent, SiteScan

AI_READABLE_FROM = 50
SEO_OK_FROM = 3
META_CHARACTERS_MIN = 50
# A page of one semantic element only (a lone <section>) is not marked up for meaning.
SEMANTIC_TAGS_MIN = 2
ALTERNATIVE_TEXTS_SHARE_MIN = 0.8


def ai_readability(scan: SiteScan) -> Score:
    """How well a program understands the page: 100 points, readable from 50. `addresses`, images ... are of the home page."""
    structure, contact = scan.structure, scan.contact
    images, without = structure.image_count, scan.accessibility.images_without_alt_count
    description = scan.head.description or ""
    ways = [name for name, found in _ways_of_contact(scan).items() if found]
    tags = structure.semantic_tags
    sitemap = structure.sitemap is not None and structure.sitemap.is_found
    has_headings = bool(structure.h1) and len(structure.heading_levels) >= 2
    address = next((one for one in contact.addresses if one.source == "structured"), None)
    components = [
        _component(
            "structured_data",
            20,
            scan.structured.item_count > 0,
            _listed(scan.structured.formats, "no structured data"),
        ),
        _component(
            "headings", 15, has_headings, f"{len(structure.h1)} h1, {len(structure.heading_levels)} headings in all"
        ),
        _component("semantic_tags", 10, len(tags) >= SEMANTIC_TAGS_MIN, _listed(tags, "no semantic elements")),
        _component(
            "meta_text", 10, len(description) > META_CHARACTERS_MIN, f"description of {len(description)} characters"
        ),
        _component("open_graph", 10, bool(scan.head.open_graph), f"{len(scan.head.open_graph)} Open Graph properties"),
        _component("contact", 10, len(ways) >= 2, _listed(ways, "no way of contact")),
        _component("address", 5, address is not None, address.text if address else "no address in structured data"),
        _component("sitemap", 10, sitemap, "sitemap found" if sitemap else "no sitemap"),
        _component(
            "alternative_texts",
            10,
            images > 0 and (images - without) / images >= ALTERNATIVE_TEXTS_SHARE_MIN,
            f"{images - without} of {images} images have one",
        ),
    ]
    points = sum(component.points for component in components)
    return Score(points, sum(one.points_max for one in components), points >= AI_READABLE_FROM, components)


def seo(scan: SiteScan) -> Score:
    """Five questions, one point each, passed with three: TLS, meta description, h1, structured data, Open Graph."""
    head = scan.head
    components = [
        _component("tls", 1, scan.access.has_tls, "https" if scan.access.has_tls else "http only"),
        _component("meta", 1, bool(head.description), "description" if head.description else "no description"),
        _component("h1", 1, bool(scan.structure.h1), _listed(scan.structure.h1[:1], "no h1")),
        _component("structured_data", 1, scan.structured.item_count > 0, f"{scan.structured.item_count} items"),
        _component("open_graph", 1, bool(head.open_graph), f"{len(head.open_graph)} properties"),
    ]
    points = sum(component.points for component in components)
    return Score(points, len(components), points >= SEO_OK_FROM, components)


def _ways_of_contact(scan: SiteScan) -> dict[str, bool]:
    contact = scan.contact
    return {
        "phone": scan.has_phone,
        "e-mail": scan.has_email,
        "form": contact.has_form,
        "contact page": contact.page_url is not None,
    }


def _component(name: str, points_max: int, is_met: bool, reason: str) -> ScoreComponent:
    return ScoreComponent(name, points_max if is_met else 0, points_max, reason)


def _listed(names: list[str], otherwise: str) -> str:
    return ", ".join(names) if names else otherwise
