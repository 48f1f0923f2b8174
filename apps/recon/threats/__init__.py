"""Threats, contributors and the publication of what a campaign found. See `apps/recon/campaigns/README.md`."""
