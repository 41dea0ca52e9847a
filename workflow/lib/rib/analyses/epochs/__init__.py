"""Representations and scores in the course of training."""
