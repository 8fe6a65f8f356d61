"""Recipes of the paper's four benchmarks."""
