"""Configuration and catalogue."""
