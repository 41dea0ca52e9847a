"""Views of a training while it runs; no result depends on them."""
