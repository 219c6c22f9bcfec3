"""Is nantui ever wrong about a training that is well? Hundreds of them, each beside one without the guard."""
