"""What the markup of a page says: head, structure, forms, text, what it loads, how accessible it is. Pure."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from urllib.parse import urlsplit

from selectolax.lexbor import LexborNode

from apps.leads.web.document import Document, attribute, clean, host_of, visible_text
from apps.leads.web.types import Accessibility, Form, Head, Resources, Structure, Text

SEMANTIC_TAGS = ("header", "nav", "main", "article", "section", "aside", "footer", "figure", "address", "time")
_FIELDS = "input:not([type=hidden]):not([type=submit]):not([type=button]):not([type=reset]):not([type=image]), textarea, select"
_SERVICES = re.compile(
    r"\b(?:our |all |what we )?(?:services|service|treatments|products|solutions|specialit(?:y|ies)|what we do|"
    r"onze diensten|diensten|aanbod|producten|nos services|prestations|nos produits|sp[ée]cialit[ée]s|"
    r"unsere leistungen|leistungen|angebot|dienstleistungen)\b",
    re.IGNORECASE,
)
_NEWSLETTER = re.compile(r"newsletter|subscribe|nieuwsbrief|lettre d.info|mailchimp|list-manage", re.IGNORECASE)
_FONT = re.compile(r"\.(?:woff2?|ttf|otf|eot)(?:[?#]|$)", re.IGNORECASE)


def head(document: Document) -> Head:
    tree, meta = document.tree, document.meta
    title = tree.css_first("head title") or tree.css_first("title")
    root = tree.css_first("html")
    canonical = tree.css_first("link[rel~=canonical i][href]")
    icon = tree.css_first("link[rel~=icon i][href]")
    return Head(
        title=(clean(title.text(), 300) or None) if title is not None else None,
        description=meta.get("description"),
        language=(attribute(root, "lang") or attribute(root, "xml:lang") or None) if root is not None else None,
        canonical_url=document.absolute(attribute(canonical, "href")) if canonical is not None else None,
        viewport=meta.get("viewport"),
        robots=meta.get("robots"),
        generator=meta.get("generator"),
        favicon_url=document.absolute(attribute(icon, "href")) if icon is not None else None,
        open_graph=_prefixed(meta, "og:"),
        twitter_card=_prefixed(meta, "twitter:"),
    )


def _prefixed(meta: dict[str, str], prefix: str) -> dict[str, str]:
    found = {key.removeprefix(prefix): value[:300] for key, value in meta.items() if key.startswith(prefix)}
    return dict(list(found.items())[:20])


def structure(document: Document) -> Structure:
    headings = document.nodes("h1, h2, h3, h4, h5, h6")
    links = [url for href, _ in document.links if href[:1] != "#" and (url := document.absolute(href))]
    own_count = sum(document.is_own(url) for url in links)
    return Structure(
        h1=[text for node in headings if node.tag == "h1" and (text := heading_text(node))][:10],
        heading_levels=[int((node.tag or "h1")[1]) for node in headings][:200],
        semantic_tags=[tag for tag in SEMANTIC_TAGS if document.tree.css_first(tag) is not None],
        image_count=len(document.nodes("img")),
        internal_link_count=own_count,
        external_link_count=len(links) - own_count,
        node_count=len(document.nodes("*")),
    )


def heading_text(node: LexborNode) -> str:
    """The text of a heading; of a logo its alternative text."""
    image = node.css_first("img[alt]")
    return visible_text(node, 200) or (clean(attribute(image, "alt"), 200) if image is not None else "")


def forms(document: Document) -> list[Form]:
    """The forms of a page, with a guess what each is for. Forms of old ASP.NET wrap the whole page: `other`."""
    found: list[Form] = []
    for node in document.nodes("form")[:20]:
        fields = node.css(_FIELDS)
        action = attribute(node, "action")
        found.append(
            Form(
                kind=_form_kind(node, fields, action),
                field_count=len(fields),
                method=(attribute(node, "method") or "get").lower()[:10],
                action=action[:300],
            )
        )
    return found


def _form_kind(node: LexborNode, fields: list[LexborNode], action: str) -> str:
    names = " ".join(
        f"{attribute(field, 'name')} {attribute(field, 'id')} {attribute(field, 'placeholder')}" for field in fields
    ).lower()
    marks = f"{attribute(node, 'class')} {attribute(node, 'id')} {action}".lower()
    types = Counter(attribute(field, "type").lower() for field in fields)
    has_message = any(field.tag == "textarea" for field in fields)
    has_email = types["email"] > 0 or "mail" in names
    if types["password"]:
        return "login"
    if (
        types["search"]
        or attribute(node, "role") == "search"
        or re.search(r"\bsearch|zoek|recherche|suche", marks + names)
    ):
        return "contact" if has_message and has_email else "search"
    if has_message and (has_email or len(fields) > 1 or "contact" in marks):
        return "contact"
    if has_email and (len(fields) <= 2 or _NEWSLETTER.search(marks)):
        return "newsletter"
    if "contact" in marks or "wpcf7" in marks or (has_email and len(fields) >= 3):
        return "contact"
    return "search" if len(fields) == 1 and (attribute(node, "method") or "get").lower() == "get" else "other"


def text(document: Document, page_head: Head) -> Text:
    description = page_head.description or page_head.open_graph.get("description")
    if description is None:
        paragraphs = (visible_text(node) for node in document.nodes("p")[:200])
        description = next((paragraph for paragraph in paragraphs if len(paragraph) >= 60), None)
    return Text(
        description=description,
        services=services(document),
        word_count=len(re.findall(r"\w+", document.text)),
        excerpt=" ".join(document.lines)[:500].strip(),
    )


def services(document: Document) -> list[str]:
    """What stands below a heading such as `Our services`: the next list, or the next smaller headings."""
    found: list[str] = []
    for heading in document.nodes("h1, h2, h3, h4"):
        title = visible_text(heading, 60)
        if not title or len(title) > 40 or _SERVICES.search(title) is None:
            continue
        level = heading.tag or "h2"
        node = heading.next
        for _ in range(40):
            if node is None or ((node.tag or "") in {"h1", "h2", "h3", "h4"} and (node.tag or "") <= level):
                break
            if node.is_element_node:
                items = [node] if node.tag in {"h3", "h4", "h5"} else node.css("li, h3, h4, h5, dt")
                found += [visible_text(item, 80) for item in items]
            node = node.next
    return [name for name in dict.fromkeys(found) if 2 < len(name) < 80][:20]


def resources(document: Document) -> Resources:
    """What a browser loads for the page, from its markup alone."""
    scripts, sheets = document.nodes("script[src]"), document.nodes("link[rel~=stylesheet i][href]")
    images = document.nodes("img")
    inline = [node for node in document.nodes("script:not([src])") if "json" not in attribute(node, "type")]
    addresses = [attribute(node, "src") for node in [*scripts, *images, *document.nodes("iframe[src]")]]
    addresses += [attribute(node, "href") for node in sheets]
    urls = [url for address in addresses if address and (url := document.absolute(address))]
    fonts = [node for node in document.nodes("link[href]") if _FONT.search(attribute(node, "href"))]
    is_secure = document.url.startswith("https://")
    return Resources(
        script_count=len(scripts),
        stylesheet_count=len(sheets),
        image_count=len(images),
        font_count=len(fonts),
        iframe_count=len(document.nodes("iframe")),
        third_party_hosts=sorted({host_of(url) for url in urls if host_of(url) and not document.is_own(url)})[:30],
        render_blocking=render_blocking(document)[:20],
        inline_script_bytes=sum(len((node.text() or "").encode()) for node in inline),
        inline_style_bytes=sum(len((node.text() or "").encode()) for node in document.nodes("style")),
        images_without_size_count=sum(not (attribute(node, "width") and attribute(node, "height")) for node in images),
        images_lazy_count=sum(attribute(node, "loading").lower() == "lazy" for node in images),
        insecure_urls=sorted({url[:200] for url in urls if is_secure and url.startswith("http://")})[:10],
    )


def render_blocking(document: Document) -> list[str]:
    """Files of the head that a browser waits for before it shows anything."""
    found: list[str] = []
    for node in document.nodes("head script[src]"):
        is_later = any(name in node.attributes for name in ("async", "defer")) or attribute(node, "type") == "module"
        if not is_later:
            found.append(attribute(node, "src")[:200])
    for node in document.nodes("head link[rel~=stylesheet i][href]"):
        if attribute(node, "media").lower() in {"", "all", "screen"} and "disabled" not in node.attributes:
            found.append(attribute(node, "href")[:200])
    return found


def asset_urls(document: Document) -> list[tuple[str, str]]:
    """(address, kind) of the site's own scripts and style sheets, style sheets first: they block."""
    found: dict[str, str] = {}
    for selector, name, kind in (
        ("link[rel~=stylesheet i][href]", "href", "stylesheet"),
        ("script[src]", "src", "script"),
    ):
        for node in document.nodes(selector):
            url = document.absolute(attribute(node, name))
            if url and urlsplit(url).scheme and document.is_own(url):
                found.setdefault(url, kind)
    return list(found.items())


def accessibility(document: Document) -> Accessibility:
    """Checks of WCAG that markup alone decides. Colours and behaviour are beyond it."""
    fields = document.nodes(_FIELDS)
    labelled = {attribute(node, "for") for node in document.nodes("label[for]")}
    ids = Counter(attribute(node, "id") for node in document.nodes("[id]"))
    levels = structure(document).heading_levels
    viewport = document.meta.get("viewport", "").replace(" ", "").lower()
    first_links = [href for href, _ in document.links[:3]]
    return Accessibility(
        # alt="" is right for decoration; a missing one never is.
        images_without_alt_count=sum("alt" not in node.attributes for node in document.nodes("img")),
        field_count=len(fields),
        fields_without_label_count=sum(not _has_label(node, labelled) for node in fields),
        links_without_text_count=sum(not _has_name(node) for node in document.nodes("a[href]")[:2_000]),
        buttons_without_text_count=sum(
            not _has_name(node) for node in document.nodes("button, input[type=button], input[type=image]")
        ),
        iframes_without_title_count=sum(
            not attribute(node, "title") and attribute(node, "aria-hidden") != "true" and not _is_hidden(node)
            for node in document.nodes("iframe")
        ),
        duplicate_id_count=sum(count > 1 for name, count in ids.items() if name),
        positive_tabindex_count=sum(
            attribute(node, "tabindex").isdecimal() and int(attribute(node, "tabindex")[:4]) > 0
            for node in document.nodes("[tabindex]")
        ),
        has_main=document.tree.css_first("main, [role=main]") is not None,
        has_skip_link=any(len(href) > 1 and href.startswith("#") for href in first_links),
        is_zoom_blocked="user-scalable=no" in viewport
        or re.search(r"maximum-scale=1(?:\.0*)?(?:,|$)", viewport) is not None,
        skipped_heading_count=sum(after > before + 1 for before, after in pairwise(levels)),
    )


def _is_hidden(node: LexborNode) -> bool:
    style = attribute(node, "style").replace(" ", "").lower()
    return "display:none" in style or "visibility:hidden" in style or "hidden" in node.attributes


def _has_label(field: LexborNode, labelled: set[str]) -> bool:
    if any(attribute(field, name) for name in ("aria-label", "aria-labelledby", "title")):
        return True
    if attribute(field, "id") in labelled and attribute(field, "id"):
        return True
    parent = field.parent
    for _ in range(6):
        if parent is None:
            return False
        if parent.tag == "label":
            return True
        parent = parent.parent
    return False


def _has_name(node: LexborNode) -> bool:
    """Whether a link or button has something that can be read out."""
    if any(attribute(node, name) for name in ("aria-label", "aria-labelledby", "title", "value", "alt")):
        return True
    if clean(node.text()):
        return True
    return any(
        attribute(inner, "alt") or attribute(inner, "aria-label") or inner.tag == "title"
        for inner in node.css("img, svg, svg title, [aria-label]")
    )
