"""Scan campaigns: targets in, scans in durable batches, correlated findings out. See README.md."""
