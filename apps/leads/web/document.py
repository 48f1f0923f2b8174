"""A parsed page with what all readers of it share: the visible text, line by line, and its links. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

from apps.leads.web.charset import Decoded, decode

# A page is cut by `FetchLimits.body_bytes_max`; this is for files that come from elsewhere.
TEXT_CHARACTERS_MAX = 300_000
HTML_CHARACTERS_MAX = 5_000_000
# Real pages stay below 100; browsers cut at 512. More, because unclosed tags are counted as if they nested.
DEPTH_MAX = 1_000
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_NOT_COUNTED = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "source",
        "track",
        "wbr",
        "p",
        "li",
        "dt",
        "dd",
        "td",
        "th",
        "tr",
        "tbody",
        "thead",
        "tfoot",
        "option",
        "optgroup",
        "html",
        "head",
        "body",
        "a",
    ]
)
_UNSEEN = frozenset({"script", "style", "noscript", "template", "head", "svg", "object", "textarea", "select"})
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "br",
        "button",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "label",
        "legend",
        "li",
        "main",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_BLANKS = re.compile(r"[\s\u00a0\u200b\u200e\u200f\ufeff]+")


def clean(text: str | None, characters_max: int = 500) -> str:
    """One line of text without double blanks, cut at `characters_max`."""
    return _BLANKS.sub(" ", text or "").strip()[:characters_max]


def attribute(node: LexborNode, name: str) -> str:
    """The value of an attribute without blanks around it; empty when it is not there."""
    return (node.attributes.get(name) or "").strip()


class Document:
    """One page. `url` is where it was found; `<base>` counts for its links."""

    def __init__(self, body: bytes, url: str, content_type: str | None = None) -> None:
        self.decoded: Decoded = decode(body, content_type)
        self.html = cut_where_too_deep(self.decoded.text[:HTML_CHARACTERS_MAX].replace("\x00", ""))
        self.url = url
        self.tree = LexborHTMLParser(self.html or "<html></html>")

    @cached_property
    def base_url(self) -> str:
        base = self.tree.css_first("base[href]")
        return self.resolved(attribute(base, "href"), self.url) or self.url if base is not None else self.url

    @staticmethod
    def resolved(address: str, base: str) -> str | None:
        try:
            return urljoin(base, address)
        except ValueError:
            return None

    def absolute(self, address: str) -> str | None:
        """`address` as the browser would take it; None when that is not http(s)."""
        joined = self.resolved(address.strip(), self.base_url)
        if joined is None:
            return None
        try:
            parts = urlsplit(joined)
        except ValueError:
            return None
        # Pages read from a file have no address; their relative links stay relative.
        return joined if parts.scheme in {"http", "https", ""} and joined else None

    def nodes(self, selector: str) -> list[LexborNode]:
        return self.tree.css(selector)

    @cached_property
    def meta(self) -> dict[str, str]:
        """`<meta>` by name, property or itemprop in small letters; the first of a kind wins."""
        found: dict[str, str] = {}
        for node in self.nodes("meta[content]"):
            key = attribute(node, "name") or attribute(node, "property") or attribute(node, "http-equiv")
            value = clean(attribute(node, "content"), 1_000)
            if key and value:
                found.setdefault(key.lower()[:80], value)
        return found

    @cached_property
    def links(self) -> list[tuple[str, str]]:
        """(address, text) of every `<a href>`; the text is that of the images in it where there is no other."""
        found: list[tuple[str, str]] = []
        for node in self.nodes("a[href], area[href]")[:3_000]:
            text = visible_text(node, 200)
            if not text:
                image = node.css_first("img[alt]")
                text = clean(attribute(image, "alt") if image is not None else attribute(node, "title"), 200)
            found.append((attribute(node, "href"), text))
        return found

    @cached_property
    def lines(self) -> list[str]:
        """What a reader sees, a line per block; several blanks are one."""
        lines: list[str] = []
        current: list[str] = []
        size = 0
        for piece in pieces(self.tree.body or self.tree.root):
            if piece is None:
                if current:
                    line = clean("".join(current), 2_000)
                    current = []
                    if line:
                        lines.append(line)
                continue
            current.append(piece)
            size += len(piece)
            if size > TEXT_CHARACTERS_MAX:
                break
        if current and (line := clean("".join(current), 2_000)):
            lines.append(line)
        return lines

    @cached_property
    def text(self) -> str:
        return "\n".join(self.lines)

    @cached_property
    def host(self) -> str:
        return host_of(self.url)

    def is_own(self, url: str) -> bool:
        """Whether `url` is of the same site: same host, `www.` and subdomains aside."""
        other = host_of(url)
        return not other or other == self.host or other.endswith("." + self.host) or self.host.endswith("." + other)


def cut_where_too_deep(html: str) -> str:
    """`html` up to where elements nest deeper than `DEPTH_MAX`; parsing takes time with the square of the depth.

    Counted by tags alone, without those that need no end tag.
    """
    if html.count("<") <= DEPTH_MAX:
        return html
    depth = 0
    for match in _TAG.finditer(html):
        if match[2].lower() in _NOT_COUNTED:
            continue
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > DEPTH_MAX:
            return html[: match.start()]
    return html


def pieces(root: LexborNode | None) -> Iterator[str | None]:
    """What a reader sees below `root`, in order; None where a block begins or ends. Without recursion: pages nest."""
    if root is None:
        return
    stack: list[tuple[LexborNode | None, bool]] = [(root.child, False)]
    while stack:
        node, is_block_end = stack.pop()
        if is_block_end:
            yield None
        if node is None:
            continue
        stack.append((node.next, False))
        if node.is_text_node:
            yield node.text_content or ""
            continue
        tag = node.tag or ""
        if not node.is_element_node or tag in _UNSEEN or "hidden" in node.attributes:
            continue
        if tag in _BLOCKS:
            yield None
            stack.append((None, True))
        if tag == "img" and (alternative := attribute(node, "alt")):
            yield f" {alternative} "
        stack.append((node.child, False))


def visible_text(node: LexborNode, characters_max: int = 500) -> str:
    """What a reader sees of `node`, on one line: no script, no style."""
    return clean("".join(" " if piece is None else piece for piece in pieces(node)), characters_max)


def host_of(url: str) -> str:
    """The host in small letters without `www.`; empty when there is none."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""
