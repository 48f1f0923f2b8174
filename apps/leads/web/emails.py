"""E-mail addresses of a page: links, plain text, and what was lightly hidden from robots. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from apps.leads.web.document import Document, attribute
from apps.leads.web.types import Email

EMAILS_MAX = 30
_LOCAL = r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"
_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
_ADDRESS = re.compile(rf"(?<![A-Za-z0-9._%+-]){_LOCAL}@{_DOMAIN}(?![A-Za-z0-9@-])")
_WHOLE = re.compile(rf"{_LOCAL}@{_DOMAIN}")
# info [at] shop [dot] com; the word alone, without brackets, only with `dot` spelled as well.
_BRACKETED = re.compile(
    rf"({_LOCAL})\s*[\[({{<]\s*(?:at|@|arobase|apenstaart|ät)\s*[\])}}>]\s*"
    r"([A-Za-z0-9-]+(?:\s*(?:\.|[\[({<]\s*(?:dot|punt|point|punkt|\.)\s*[\])}>])\s*[A-Za-z0-9-]+)+)",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    rf"({_LOCAL})\s+(?:at|arobase)\s+([A-Za-z0-9-]+(?:\s+(?:dot|point|punt)\s+[A-Za-z0-9-]+)*?\s+(?:dot|point|punt)\s+"
    r"(?:com|net|org|info|biz|shop|eu|be|nl|fr|de|lu|uk|ch|at|es|it|ca|us|io))\b",
    re.IGNORECASE,
)
_SPACED = re.compile(rf"(?<![A-Za-z0-9._%+-])({_LOCAL})(?: @ |@ )({_DOMAIN})(?![A-Za-z0-9@-])")
_DOT = re.compile(r"\s*(?:[\[({<]\s*(?:dot|punt|point|punkt|\.)\s*[\])}>]|\s(?:dot|point|punt)\s|\.)\s*", re.IGNORECASE)
_FILE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".css", ".js", ".ico", ".woff", ".pdf")
# Never a business's own: place holders, and the mark of tools.
_NOT_MEANT = re.compile(
    r"@(?:example\.(?:com|org|net)|domain\.(?:com|tld)|yourdomain\.\w+|email\.com|sentry\.io|.*\.sentry\.io|"
    r"sentry\.wixpress\.com|2x\..*)$|^(?:you|your|yourname|name|user|username|email)@",
    re.IGNORECASE,
)


def is_meant(address: str) -> bool:
    """Whether `address` is one that somebody may read."""
    return not address.lower().endswith(_FILE_ENDINGS) and _NOT_MEANT.search(address) is None


def normal(address: str) -> str | None:
    """`address` in small letters when it is one, else None."""
    text = unquote(address).strip().strip("<>\"'").rstrip(".").lower()
    return text if _WHOLE.fullmatch(text) and is_meant(text) else None


def cloudflare_address(code: str) -> str | None:
    """What Cloudflare hides as hexadecimal digits, every byte of it mixed with the first."""
    try:
        data = bytes.fromhex(code)
    except ValueError:
        return None
    return normal(bytes(byte ^ data[0] for byte in data[1:]).decode("utf-8", "replace")) if len(data) > 1 else None


def emails_in(document: Document) -> list[Email]:
    """All addresses of a page, the surest first; one per address."""
    found: list[tuple[str | None, str]] = []
    for link, _ in document.links:
        if link[:7].lower() == "mailto:":
            found += [(normal(one), "mailto") for one in re.split(r"[,;]", link[7:].partition("?")[0])]
    codes = [attribute(node, "data-cfemail") for node in document.nodes("[data-cfemail]")]
    codes += [link.partition("email-protection#")[2] for link, _ in document.links if "email-protection#" in link]
    found += [(cloudflare_address(code), "obfuscated") for code in codes]
    found += [(normal(match[0]), "text") for match in _ADDRESS.finditer(document.text)]
    for pattern in (_BRACKETED, _SPELLED, _SPACED):
        for line in document.lines:
            if len(line) < 1_000:
                found += [
                    (normal(f"{match[1]}@{_DOT.sub('.', match[2])}"), "obfuscated") for match in pattern.finditer(line)
                ]
    return merge_emails(Email(address, source, document.url) for address, source in found if address)


def merge_emails(emails: Iterable[Email]) -> list[Email]:
    """One per address, first seen first."""
    merged: dict[str, Email] = {}
    for email in emails:
        merged.setdefault(email.address, email)
    return list(merged.values())[:EMAILS_MAX]
