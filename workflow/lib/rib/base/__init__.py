"""Errors, progress, files and plugins, used by all packages."""
