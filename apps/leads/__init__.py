"""leads: discovery and enrichment of businesses, paid from a wallet."""
