"""Archives in, arrays out: fetching, layouts, geometry, prepared datasets."""
