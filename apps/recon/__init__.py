"""recon: signed port scans in, one graph of hosts and ports out, each scan processed by a durable workflow."""
