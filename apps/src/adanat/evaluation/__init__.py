"""Evaluation of any source of images: folders, archives, shards, or a run of this project."""

from adanat.evaluation.commands import compare, evaluate_path, names_path
from adanat.evaluation.evaluate import evaluate_source
from adanat.evaluation.options import SourceEvaluation
from adanat.evaluation.results import EvaluationResult

__all__ = [
    "EvaluationResult",
    "SourceEvaluation",
    "compare",
    "evaluate_path",
    "evaluate_source",
    "names_path",
]
