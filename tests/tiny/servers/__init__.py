"""Servers and users on this machine that stand in for others."""
