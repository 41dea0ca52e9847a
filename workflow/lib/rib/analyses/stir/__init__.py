"""Shared invariances of networks before and after fine-tuning (STIR)."""
