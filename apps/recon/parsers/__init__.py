"""Scanner output -> `model.Scan`. Pure: text in, hosts and ports out; the format is recognised, not declared."""

from __future__ import annotations

from apps.recon.model import Scan
from apps.recon.parsers.errors import ScanRejected
from apps.recon.parsers.jsonlines import parse_json_scan
from apps.recon.parsers.nmap import parse_nmap

__all__ = ["ScanRejected", "parse_scan"]


def parse_scan(text: str) -> Scan:
    """Parse the output of naabu (JSON lines), masscan (JSON) or nmap (XML).

    Entries that cannot be used are skipped and counted in `Scan.skipped_count`.

    Raises:
        ScanRejected: nothing in it can be used ("no valid hosts"), or XML that is broken or unsafe.
    """
    text = text.lstrip("\ufeff \t\r\n")
    scan = parse_nmap(text) if text.startswith("<") else parse_json_scan(text)
    if not scan.hosts:
        entries = "1 entry" if scan.skipped_count == 1 else f"{scan.skipped_count} entries"
        skipped = f" ({entries} could not be used)" if scan.skipped_count else ""
        raise ScanRejected(f"no valid hosts{skipped}")
    return scan
