"""Throughput suites for the AdaNAT packages, and the plain loop that they are compared with."""

from natbench.presets import PRESETS, Preset
from natbench.reference_loop import ReferenceGeneration, generate_plainly

__all__ = ["PRESETS", "Preset", "ReferenceGeneration", "generate_plainly"]
