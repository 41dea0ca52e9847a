"""Provenance records: writing, comparing and sharing them."""
