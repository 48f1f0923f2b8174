"""`leads scan-website`: try the scanner alone, on a file or on a live site."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import msgspec

from apps.leads.web.audit import judge
from apps.leads.web.scan import scan_page, scan_site
from apps.leads.web.types import ENRICHMENT_LIMITS, NetworkPolicy, Score, SiteScan


def scan_target(
    target: str, *, country: str | None = None, comprehensive: bool = True, policy: NetworkPolicy | None = None
) -> SiteScan:
    """Scan a saved page or a website.

    Args:
        target: A path to a file, or an address.
    Raises:
        FileNotFoundError: It looks like a path, and there is no such file.
    """
    path = Path(target)
    if path.is_file():
        return scan_page(path.read_bytes(), country=country)
    if "://" not in target and (path.suffix.lower() in {".html", ".htm", ".xhtml"} or target.startswith((".", "/"))):
        raise FileNotFoundError(target)
    return asyncio.run(
        scan_site(target, limits=ENRICHMENT_LIMITS, policy=policy, comprehensive=comprehensive, country=country)
    )


def scan_text(scan: SiteScan) -> str:
    """A scan for people to read: one line per group that has something."""
    access = scan.access
    if not scan.is_reachable:
        why = f"{scan.failure.code}: {scan.failure.message}" if scan.failure else "no answer"
        return f"{access.url}: not reachable, {why}"
    report = judge(scan)
    organization = scan.structured.organization
    rows = {
        "address": f"{access.final_url or '(a file)'}  {access.status or ''}".strip(),
        "title": scan.head.title,
        "description": scan.text.description,
        "charset": f"{access.charset} ({access.charset_source})",
        "phones": ", ".join(f"{one.number}{' (fax)' if one.is_fax else ''}" for one in scan.contact.phones),
        "e-mails": ", ".join(one.address for one in scan.contact.emails),
        "address lines": "; ".join(one.text for one in scan.contact.addresses),
        "contact": ", ".join(
            [*(["form"] if scan.contact.has_form else []), *([scan.contact.page_url] if scan.contact.page_url else [])]
        ),
        "social": ", ".join(f"{name} {url}" for name, url in scan.social.items()),
        "booking": _names(scan, "booking"),
        "chat": _names(scan, "chat"),
        "trackers": _names(scan, "trackers"),
        "technology": _names(scan, "technology"),
        "structured data": ", ".join([*scan.structured.formats, *scan.structured.types]),
        "organization": organization.name if organization else None,
        "services": ", ".join(scan.text.services),
        "owner candidates": ", ".join(f"{one.name} ({one.role}, {one.confidence})" for one in scan.owner_candidates),
        "AI-readability": _score_text(scan.ai_readability),
        "SEO": _score_text(scan.seo),
        "audit": f"{report.score}/100 " + ", ".join(f"{name} {points}" for name, points in report.scores.items()),
    }
    return "\n".join(f"{name:17} {value}" for name, value in rows.items() if value)


def _names(scan: SiteScan, group: str) -> str:
    return ", ".join(f"{one.name} {one.detail}" if one.detail else one.name for one in getattr(scan, group))


def _score_text(score: Score | None) -> str:
    if score is None:
        return ""
    parts = ", ".join(f"{one.name} {one.points}/{one.points_max}" for one in score.components)
    return f"{score.points}/{score.points_max} {'passed' if score.is_passed else 'not passed'}: {parts}"


def main(arguments: Sequence[str]) -> int:
    """The command line. Answers 0, 1 when the site cannot be read, 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m apps.leads.web", description="Scan one page or website.")
    parser.add_argument("target", help="a saved page, or an address")
    parser.add_argument("--country", help="two letters: where the business is, for telephone numbers")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument(
        "--allow-network", action="append", default=[], help="a network that is not public, such as 127.0.0.0/8"
    )
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    try:
        for network in options.allow_network:
            ip_network(network)
    except ValueError as wrong:
        sys.stderr.write(f"error: {wrong}; next: write a network such as 127.0.0.0/8\n")
        return 2
    policy = NetworkPolicy(allowed_networks=tuple(options.allow_network))
    try:
        scan = scan_target(options.target, country=options.country and options.country.upper(), policy=policy)
    except FileNotFoundError as missing:
        sys.stderr.write(f"error: no file {missing}; next: give a saved page, or an address with http:// or https://\n")
        return 2
    text = msgspec.json.format(msgspec.json.encode(scan), indent=2).decode() if options.json else scan_text(scan)
    sys.stdout.write(f"{text}\n")
    return 0 if scan.is_reachable else 1
