"""Analyses of rows, tables and features, one module each. No torch."""
