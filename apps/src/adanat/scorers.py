"""The fixed models that the reward design `pretrained` asks: a classifier, CLIP, ImageReward."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from advreward import ClassifierScorer, ImageScorer, PretrainedReward

from adanat.conditions import PROMPT_NUMBERS
from adanat.errors import AdanatError
from adanat.metrics import ClassifierConfig, ClassifierTrainingConfig, train_classifier
from adanat.recipes.base import RewardRecipe
from adanat.run import Run
from adanat.seeding import derive_seed

_TEMPLATE = "a photo of a {}"
_WORDNET_ID = re.compile(r"n\d{8}")


def pretrained_reward(
    run: Run, seed: int, *, captions: Sequence[str] | None = None
) -> PretrainedReward:
    """The reward of the recipe's scorer, of one image and its prompt or class.

    Args:
        run: its recipe names the scorer.
        seed: of the classifier, where that is the scorer.
        captions: what the prompt numbers of outcomes count, where text conditions the run; None:
            those that the policy's training draws, all of which are encoded now.

    Raises:
        AdanatError: the scorer's weights or the prompts cannot be read.
    """
    recipe, captioned = run.recipe.reward, run.recipe.text.encoder is not None
    scorer: ImageScorer
    if recipe.scorer == "classifier":
        scorer = _classifier(run, seed)
    else:
        prompts = _captions(run, captions) if captioned else class_prompts(run)
        scorer = load_text_scorer(recipe, prompts, run.device)
    return PretrainedReward(
        scorer,
        condition_name=PROMPT_NUMBERS if captioned else "labels",
        batch_size=recipe.adversarial.extract_batch_size,
    )


def load_text_scorer(
    recipe: RewardRecipe, prompts: Sequence[str], device: torch.device
) -> ImageScorer:
    """CLIP or ImageReward, of images and the numbers of prompts.

    Raises:
        AdanatError: it cannot be read.
    """
    # Both modules import transformers, which takes seconds.
    try:
        if recipe.scorer == "clip":
            from advreward.clip import clip_scorer

            return clip_scorer(recipe.scorer_weights, prompts, device=device)
        from advreward.image_reward import image_reward_scorer

        path, tokenizer = Path(recipe.scorer_weights), recipe.scorer_tokenizer
        return image_reward_scorer(path, prompts, tokenizer=tokenizer).to(device)
    except (OSError, ValueError, RuntimeError) as error:
        raise AdanatError(
            f"cannot load the scorer {recipe.scorer!r} from reward.scorer_weights, "
            f"{recipe.scorer_weights!r}: {error}"
        ) from error


def class_prompts(run: Run) -> list[str]:
    """One prompt for each class: the lines of the recipe's file, or made of the classes' names.

    Raises:
        AdanatError: the file cannot be read or has another number of lines.
    """
    names, path = list(run.stages.data.results()["class_names"]), run.recipe.reward.prompts
    if not path and any(_WORDNET_ID.fullmatch(name) for name in names):
        raise AdanatError(
            f"the classes are named by numbers ({names[0]!r}, ...), which say nothing to "
            f"{run.recipe.reward.scorer!r}: give --reward.prompts FILE, one line for each class"
        )
    if not path:
        return [_TEMPLATE.format(name) for name in names]
    try:
        prompts = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AdanatError(f"cannot read reward.prompts, {path}: {error}") from error
    if len(prompts) != len(names):
        raise AdanatError(
            f"reward.prompts, {path}, has {len(prompts)} lines, but there are {len(names)} classes "
            f"({names[0]!r}, ...): give one line for each, in the order of the labels"
        )
    return prompts


def _captions(run: Run, captions: Sequence[str] | None) -> list[str]:
    if captions is None:  # episode i has caption i
        recipe = run.recipe
        episodes = recipe.num_policy_cycles * recipe.policy.episodes_per_update
        captions = run.images("fit").captions[:episodes]
    return list(captions)


def _classifier(run: Run, seed: int) -> ClassifierScorer:
    """It is another one than that which confirms the scores: its seed differs."""
    data = run.reference_images("fit")
    classifier = train_classifier(
        data.images,
        data.labels,
        ClassifierConfig(num_classes=run.recipe.data.num_classes),
        ClassifierTrainingConfig(
            num_steps=run.recipe.reward.classifier_steps,
            seed=derive_seed(seed, "reward classifier"),
        ),
    )
    return ClassifierScorer(classifier.to(run.device))
