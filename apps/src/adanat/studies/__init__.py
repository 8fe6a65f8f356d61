"""Studies: several trainings on one tokenizer and transformer, compared on test images."""

from adanat.studies.ablation import AblationKind
from adanat.studies.adaptivity import study_adaptivity
from adanat.studies.length import study_length
from adanat.studies.rewards import RewardKind, study_rewards

__all__ = ["AblationKind", "RewardKind", "study_adaptivity", "study_length", "study_rewards"]
