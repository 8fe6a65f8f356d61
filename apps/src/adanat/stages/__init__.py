"""The stages of a run, in order; each does nothing when it is finished already.

`adanat.stages.write_report` is imported by its own name: it draws with matplotlib.
"""

from adanat.stages.evaluate import evaluate
from adanat.stages.prepare_data import prepare_data
from adanat.stages.sample import sample
from adanat.stages.search_schedule import search_more_steps, search_schedule
from adanat.stages.search_static import search_static, search_static_if_included
from adanat.stages.tokenize import tokenize
from adanat.stages.train_generator import train_generator
from adanat.stages.train_policy import train_policies
from adanat.stages.train_tokenizer import train_tokenizer

__all__ = [
    "evaluate",
    "prepare_data",
    "sample",
    "search_more_steps",
    "search_schedule",
    "search_static",
    "search_static_if_included",
    "tokenize",
    "train_generator",
    "train_policies",
    "train_tokenizer",
]
