"""Photos, archives and repositories, as datasets are made of."""
