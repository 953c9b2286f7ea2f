"""All methods on the same images."""
