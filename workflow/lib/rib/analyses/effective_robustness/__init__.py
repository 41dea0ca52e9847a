"""Effective robustness: accuracy beyond the line of baseline models."""
