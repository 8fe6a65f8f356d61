"""Studies: several trainings on one tokenizer and transformer, compared on test images."""

from adanat.studies.adaptivity import SubsetKind, study_adaptivity
from adanat.studies.rewards import RewardKind, study_rewards

__all__ = ["RewardKind", "SubsetKind", "study_adaptivity", "study_rewards"]
