"""The checks of the audit: one row each, with its weight and its advice. Pure functions of a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from apps.leads.web.types import AuditCategory, SiteScan

KILOBYTE = 1_000


class Finding(msgspec.Struct, frozen=True):
    message: str
    share: float = 1.0
    """How much of the check's points is lost, 0 to 1. 0: nothing is known, so the check does not count."""


class Check(msgspec.Struct, frozen=True):
    category: AuditCategory
    code: str
    points: float
    """Lost at most."""
    advice: str
    find: Callable[[SiteScan], Finding | None]
    """None: all is well."""


CHECKS: list[Check] = []
_UNKNOWN = Finding("not known", 0.0)


def _check(
    category: AuditCategory, code: str, points: float, advice: str
) -> Callable[[Callable[[SiteScan], Finding | None]], Callable[[SiteScan], Finding | None]]:
    def register(find: Callable[[SiteScan], Finding | None]) -> Callable[[SiteScan], Finding | None]:
        CHECKS.append(Check(category, code, points, advice, find))
        return find

    return register


def _share(count: float, of: float) -> float:
    return min(1.0, count / of) if of else 0.0


def _too_many(count: int, allowed: int, worst: int, what: str) -> Finding | None:
    """Points grow from none at `allowed` to all at `worst`."""
    if count <= allowed:
        return None
    return Finding(f"{count} {what} (up to {allowed} is fine)", _share(count - allowed, worst - allowed))


def _some_of(count: int, of: int, what: str) -> Finding | None:
    """A few count for something, a quarter of all for everything."""
    if count == 0 or of == 0:
        return None
    return Finding(f"{count} of {of} {what}", max(0.25, _share(count, of / 4)))


# Performance. Times are left out on purpose: they are of the network between us, and differ at every visit.


@_check("performance", "html-size", 12, "Move data and inline code out of the page, drop what is not used.")
def _html_size(scan: SiteScan) -> Finding | None:
    return _too_many(scan.access.body_bytes // KILOBYTE, 100, 500, "kB of HTML")


@_check("performance", "compression", 20, "Turn on gzip or Brotli for HTML, CSS and JavaScript in the web server.")
def _compression(scan: SiteScan) -> Finding | None:
    if not scan.access.headers or scan.access.body_bytes < 2 * KILOBYTE:
        return _UNKNOWN
    plain = [asset for asset in scan.resources.assets if not asset.is_compressed and asset.body_bytes > 2 * KILOBYTE]
    is_page_plain = scan.access.headers.get("content-encoding", "identity") == "identity"
    if not is_page_plain and not plain:
        return None
    what = ["the page"] if is_page_plain else []
    what += [f"{len(plain)} of {len(scan.resources.assets)} files"] if plain else []
    share = (0.6 if is_page_plain else 0.0) + 0.4 * _share(len(plain), max(len(scan.resources.assets), 1))
    return Finding(f"sent without compression: {' and '.join(what)}", share)


@_check(
    "performance",
    "caching",
    14,
    "Send Cache-Control: max-age of at least a week for files, with a version in their names.",
)
def _caching(scan: SiteScan) -> Finding | None:
    assets = [asset for asset in scan.resources.assets if asset.status == 200]
    if not assets:
        return _UNKNOWN
    short = [asset for asset in assets if (asset.cache_seconds or 0) < 604_800]
    return _some_of(len(short), len(assets), "files may be kept for less than a week") if short else None


@_check(
    "performance",
    "render-blocking",
    20,
    "Load scripts with defer or async; inline the CSS of the first view, load the rest later.",
)
def _render_blocking(scan: SiteScan) -> Finding | None:
    return _too_many(len(scan.resources.render_blocking), 2, 12, "files block the first view")


@_check("performance", "requests", 14, "Bundle scripts and style sheets, remove plug-ins that are not used.")
def _requests(scan: SiteScan) -> Finding | None:
    parts = scan.resources
    count = parts.script_count + parts.stylesheet_count + parts.image_count + parts.font_count + parts.iframe_count
    return _too_many(count, 40, 120, "requests for scripts, styles, images, fonts and frames")


@_check("performance", "third-parties", 8, "Ask of every outside script whether it earns its place.")
def _third_parties(scan: SiteScan) -> Finding | None:
    return _too_many(len(scan.resources.third_party_hosts), 5, 20, "other hosts are asked for files")


@_check("performance", "dom-size", 6, "Simplify the templates: fewer nested boxes.")
def _dom_size(scan: SiteScan) -> Finding | None:
    return _too_many(scan.structure.node_count, 1_500, 5_000, "elements on the page")


@_check("performance", "image-sizes", 6, "Give images width and height, so that the page does not jump.")
def _image_sizes(scan: SiteScan) -> Finding | None:
    return _some_of(
        scan.resources.images_without_size_count, scan.resources.image_count, "images without width and height"
    )


# SEO


@_check("seo", "title", 15, "Write a title of 10 to 70 characters: what you do, and where.")
def _title(scan: SiteScan) -> Finding | None:
    length = len(scan.head.title or "")
    if length == 0:
        return Finding("no title")
    return None if 10 <= length <= 70 else Finding(f"a title of {length} characters", 0.4)


@_check(
    "seo", "description", 15, "Write a meta description of 50 to 160 characters for the result page of search engines."
)
def _description(scan: SiteScan) -> Finding | None:
    length = len(scan.head.description or "")
    if length == 0:
        return Finding("no meta description")
    return None if 50 <= length <= 160 else Finding(f"a meta description of {length} characters", 0.3)


@_check("seo", "h1", 10, "Give the page exactly one h1 that says what it is about.")
def _h1(scan: SiteScan) -> Finding | None:
    count = scan.structure.heading_levels.count(1)
    if count == 1:
        return None
    return Finding("no h1" if count == 0 else f"{count} h1", 1.0 if count == 0 else 0.3)


@_check("seo", "structured-data", 12, "Add JSON-LD of type LocalBusiness: name, address, telephone, opening hours.")
def _structured_data(scan: SiteScan) -> Finding | None:
    if scan.structured.error_count:
        return Finding(f"{scan.structured.error_count} blocks of JSON-LD are broken", 0.6)
    if scan.structured.organization is None:
        return Finding("no structured data about the business", 1.0 if scan.structured.item_count == 0 else 0.6)
    return None


@_check("seo", "open-graph", 8, "Add og:title, og:description and og:image, which social networks show.")
def _open_graph(scan: SiteScan) -> Finding | None:
    missing = [name for name in ("title", "description", "image") if name not in scan.head.open_graph]
    return Finding(f"Open Graph without {', '.join(missing)}", len(missing) / 3) if missing else None


@_check(
    "seo",
    "viewport",
    10,
    "Add <meta name=viewport content='width=device-width, initial-scale=1'> and a layout for telephones.",
)
def _viewport(scan: SiteScan) -> Finding | None:
    return None if scan.head.viewport else Finding("no viewport: the page is not made for telephones")


@_check("seo", "canonical", 5, "Name the address that counts with <link rel=canonical>.")
def _canonical(scan: SiteScan) -> Finding | None:
    return None if scan.head.canonical_url else Finding("no canonical address")


@_check("seo", "indexable", 25, "Remove noindex, unless the page is to stay out of search engines.")
def _indexable(scan: SiteScan) -> Finding | None:
    said = f"{scan.head.robots or ''} {scan.access.headers.get('x-robots-tag', '')}".lower()
    return Finding("noindex: search engines must leave the page out") if "noindex" in said else None


@_check("seo", "sitemap", 6, "Publish a sitemap.xml and name it in robots.txt.")
def _sitemap(scan: SiteScan) -> Finding | None:
    if scan.structure.sitemap is None:
        return _UNKNOWN
    return None if scan.structure.sitemap.is_found else Finding("no sitemap")


@_check("seo", "text", 9, "Write at least 250 words about what you offer.")
def _text(scan: SiteScan) -> Finding | None:
    count = scan.text.word_count
    return None if count >= 250 else Finding(f"only {count} words on the page", 1.0 - count / 250)


@_check("seo", "ai-crawlers", 5, "Let AI crawlers in by robots.txt, if answers of assistants are to name the business.")
def _ai_crawlers(scan: SiteScan) -> Finding | None:
    robots = scan.structure.robots
    if robots is None:
        return _UNKNOWN
    refused = robots.refused_ai_crawlers
    return Finding(f"robots.txt keeps out {', '.join(refused)}") if refused else None


# Accessibility


@_check("accessibility", "language", 15, "Say the language of the page: <html lang=...>.")
def _language(scan: SiteScan) -> Finding | None:
    return None if scan.head.language else Finding("no lang on <html>: screen readers guess the language")


@_check("accessibility", "alternative-texts", 25, "Give every image an alt; an empty one where it only decorates.")
def _alternative_texts(scan: SiteScan) -> Finding | None:
    return _some_of(scan.accessibility.images_without_alt_count, scan.structure.image_count, "images without alt")


@_check("accessibility", "labels", 20, "Tie a <label> to every field.")
def _labels(scan: SiteScan) -> Finding | None:
    facts = scan.accessibility
    return _some_of(facts.fields_without_label_count, facts.field_count, "fields without a label")


@_check("accessibility", "link-names", 12, "Give links and buttons a text or an aria-label.")
def _link_names(scan: SiteScan) -> Finding | None:
    count = scan.accessibility.links_without_text_count + scan.accessibility.buttons_without_text_count
    return _too_many(count, 0, 8, "links or buttons without a name")


@_check("accessibility", "heading-order", 8, "Do not skip levels of headings: after h2 comes h3.")
def _heading_order(scan: SiteScan) -> Finding | None:
    if not scan.structure.heading_levels:
        return Finding("no headings at all")
    return _too_many(scan.accessibility.skipped_heading_count, 0, 3, "headings skip a level")


@_check("accessibility", "landmarks", 8, "Mark the main part with <main>, so that it can be jumped to.")
def _landmarks(scan: SiteScan) -> Finding | None:
    if scan.accessibility.has_main:
        return None
    return Finding("no <main>", 0.6 if scan.accessibility.has_skip_link else 1.0)


@_check("accessibility", "zoom", 10, "Do not forbid zooming in the viewport.")
def _zoom(scan: SiteScan) -> Finding | None:
    return Finding("the page cannot be enlarged on telephones") if scan.accessibility.is_zoom_blocked else None


@_check("accessibility", "markup", 7, "Use every id once, give frames a title, leave the tab order alone.")
def _markup(scan: SiteScan) -> Finding | None:
    facts = scan.accessibility
    counts = {
        "ids used twice": facts.duplicate_id_count,
        "frames without title": facts.iframes_without_title_count,
        "positive tabindex": facts.positive_tabindex_count,
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    return Finding(", ".join(found), _share(sum(counts.values()), 5)) if found else None


# Security


@_check("security", "tls", 40, "Serve the site by https only; certificates are free.")
def _tls(scan: SiteScan) -> Finding | None:
    if not scan.access.final_url:
        return _UNKNOWN  # a file
    if not scan.access.has_tls:
        return Finding("the site is not served by https")
    tls = scan.access.tls
    if tls is not None and not tls.is_valid:
        return Finding(f"browsers warn of the certificate: {tls.problem}", 0.9)
    if tls is not None and tls.version in {"TLSv1", "TLSv1.1", "SSLv3"}:
        return Finding(f"only {tls.version}", 0.6)
    return None


@_check("security", "https-redirect", 10, "Redirect http:// to https://.")
def _https_redirect(scan: SiteScan) -> Finding | None:
    if scan.access.http_redirects_to_https is None:
        return _UNKNOWN
    return None if scan.access.http_redirects_to_https else Finding("http:// does not lead to https://")


def _missing_header(name: str) -> Callable[[SiteScan], Finding | None]:
    def find(scan: SiteScan) -> Finding | None:
        if not scan.access.headers:
            return _UNKNOWN
        return None if name in scan.access.headers else Finding(f"no {name} header")

    return find


@_check("security", "hsts", 10, "Send Strict-Transport-Security: max-age=31536000; includeSubDomains.")
def _hsts(scan: SiteScan) -> Finding | None:
    return _missing_header("strict-transport-security")(scan) if scan.access.has_tls else _UNKNOWN


@_check(
    "security", "framing", 8, "Send Content-Security-Policy: frame-ancestors 'self' against being framed by others."
)
def _framing(scan: SiteScan) -> Finding | None:
    if "frame-ancestors" in scan.access.headers.get("content-security-policy", ""):
        return None
    return _missing_header("x-frame-options")(scan)


CHECKS += [
    Check("security", "content-security-policy", 8, "Send a Content-Security-Policy.", _missing_header("content-security-policy")),
    Check("security", "content-type-options", 6, "Send X-Content-Type-Options: nosniff.", _missing_header("x-content-type-options")),
    Check("security", "referrer-policy", 4, "Send Referrer-Policy: strict-origin-when-cross-origin.", _missing_header("referrer-policy")),
]  # fmt: skip


@_check("security", "mixed-content", 8, "Load every file by https.")
def _mixed_content(scan: SiteScan) -> Finding | None:
    return _too_many(len(scan.resources.insecure_urls), 0, 3, "files by http:// on a https:// page")


@_check("security", "cookies", 6, "Set cookies with Secure and HttpOnly.")
def _cookies(scan: SiteScan) -> Finding | None:
    return _too_many(scan.access.insecure_cookie_count, 0, 3, "cookies without Secure or HttpOnly")


@_check("security", "versions", 5, "Do not tell versions of the server's programs.")
def _versions(scan: SiteScan) -> Finding | None:
    told = [value for value in _told(scan) if any(character.isdigit() for character in value)]
    return Finding(f"versions are told: {', '.join(told)}"[:200]) if told else None


def _told(scan: SiteScan) -> Iterator[str]:
    for name in ("server", "x-powered-by"):
        if value := scan.access.headers.get(name):
            yield value
    if scan.head.generator:
        yield scan.head.generator
