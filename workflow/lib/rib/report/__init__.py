"""Page, status, cost estimate and generated documentation."""
