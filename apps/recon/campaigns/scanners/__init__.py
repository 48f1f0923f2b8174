"""Scanners: one address in, its open ports out. They know no engine and no database, and decide nothing about retries."""

from apps.recon.campaigns.scanners.base import Found, ScanFailed, Scanner, ScannerMissing, ScanTimedOut
from apps.recon.campaigns.scanners.nmap import NmapScanner
from apps.recon.campaigns.scanners.tcp import TcpScanner

__all__ = ["Found", "NmapScanner", "ScanFailed", "ScanTimedOut", "Scanner", "ScannerMissing", "TcpScanner"]
