"""Throughput suites for the AdaNAT packages, and the plain loop that they are compared with."""

from natbench.calibration import Calibration, Work, calibrate
from natbench.compare import Change, Comparison, compare
from natbench.counting import count_work, peak_memory
from natbench.presets import PRESETS, Preset
from natbench.ratio import Contest, Round, measure, picture_seconds, ratios
from natbench.reference_loop import ReferenceGeneration, generate_plainly

__all__ = [
    "PRESETS",
    "Calibration",
    "Change",
    "Comparison",
    "Contest",
    "Preset",
    "ReferenceGeneration",
    "Round",
    "Work",
    "calibrate",
    "compare",
    "count_work",
    "generate_plainly",
    "measure",
    "peak_memory",
    "picture_seconds",
    "ratios",
]
