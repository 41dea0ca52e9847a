"""Types and checks of config and catalogue: pydantic, no look-ups, no torch."""
