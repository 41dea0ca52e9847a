"""Rows and tables of made-up runs."""
