"""Fixed models as rewards of a run: by class names, by a file of prompts, by captions."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adanat.conditions import PROMPT_NUMBERS, CaptionConditions, ConditionedReward
from adanat.errors import AdanatError
from adanat.plan import missing_weights
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.scorers import class_prompts, load_text_scorer, pretrained_reward
from adanat.stages import prepare_data
from adanat.text import HashedTextEncoder
from adanat.text.features import EncodedCaptions
from advreward.clip import clip_scorer
from torch import Tensor

WORDS = ["none", "one", "two"]
MakeRun = Callable[..., Run]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "run"
    prepare_data(Run(get_recipe("tiny"), folder))
    return folder


@pytest.fixture
def make_run(data_folder: Path, clip_folder: Path) -> MakeRun:
    """A run with data alone, paid by the tiny CLIP."""

    def make(**changes: object) -> Run:
        recipe = get_recipe("tiny")
        chosen = {"design": "pretrained", "scorer": "clip", "scorer_weights": str(clip_folder)}
        reward = replace(recipe.reward, **{**chosen, **changes})
        return Run(replace(recipe, reward=reward), data_folder)

    return make


def test_a_class_is_paid_by_the_prompt_of_its_name(make_run: MakeRun, clip_folder: Path) -> None:
    run = make_run()
    prompts = class_prompts(run)
    assert prompts[:2] == ["a photo of a 0", "a photo of a 1"]
    assert len(prompts) == run.recipe.data.num_classes
    batch = {"images": torch.rand(6, 3, 8, 8), "labels": torch.arange(6)}
    expected = clip_scorer(clip_folder, prompts, batch_size=3)(*batch.values())
    torch.testing.assert_close(pretrained_reward(run, 0)(batch), expected)
    assert len(set(expected.tolist())) == 6


def test_a_file_gives_the_prompts_of_classes_without_names(
    make_run: MakeRun, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    run = make_run(prompts=str(path))
    with pytest.raises(AdanatError, match=r"cannot read reward\.prompts, .*prompts\.txt"):
        class_prompts(run)
    assert missing_weights(run.recipe) == [path]
    path.write_text("\n".join(WORDS))
    with pytest.raises(AdanatError, match=r"has 3 lines, but there are 10 classes \('0', \.\.\.\)"):
        class_prompts(run)
    path.write_text("\n".join(WORDS * 3 + ["ten"]))
    assert class_prompts(run)[3:5] == ["none", "one"]


def test_numbers_are_no_prompts(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    copied = replace(run, output_dir=tmp_path / "run")
    shutil.copytree(run.output_dir, copied.output_dir)
    done = copied.folder.data / "done.json"
    done.write_text(done.read_text().replace('"0"', '"n01440764"'))
    with pytest.raises(AdanatError, match=r"named by numbers \('n01440764', .* --reward\.prompts"):
        class_prompts(copied)


def test_captions_are_their_own_prompts(
    make_run: MakeRun, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, encoder = make_run(), HashedTextEncoder(4)
    recipe = replace(run.recipe, text=replace(run.recipe.text, encoder="hashed"))
    reward = pretrained_reward(Run(recipe, run.folder.root), 0, captions=WORDS)
    features = EncodedCaptions(lambda rows: [[*WORDS, ""][row] for row in rows], 3, encoder)
    conditions = CaptionConditions(features, "of a test")
    seen: list[Tensor] = []

    def paid(outcome: dict[str, Tensor]) -> Tensor:
        seen.append(outcome[PROMPT_NUMBERS])
        return reward(outcome)

    images, episodes = torch.rand(4, 3, 8, 8), torch.tensor([4, 0, 2, 5])
    found = ConditionedReward(paid, conditions)({"images": images, "episodes": episodes})
    assert seen[0].tolist() == [1, 0, 2, 2]  # captions in turn
    expected = clip_scorer(clip_folder, WORDS)(images, seen[0])
    torch.testing.assert_close(found, expected)


def test_scorers_that_cannot_be_had_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    absent = make_run(scorer_weights=str(tmp_path / "absent")).recipe.reward
    with pytest.raises(AdanatError, match=r"cannot load the scorer 'clip' .*absent"):
        load_text_scorer(absent, WORDS, torch.device("cpu"))
    preferred = replace(absent, scorer="image-reward")
    with pytest.raises(AdanatError, match=r"cannot load the scorer 'image-reward' .*absent"):
        load_text_scorer(preferred, WORDS, torch.device("cpu"))
    assert missing_weights(replace(get_recipe("tiny"), reward=preferred)) == [tmp_path / "absent"]
    with pytest.raises(ValueError, match=r"scorer must be .* got 'pick'"):
        replace(absent, scorer="pick")
    captioned = replace(get_recipe("tiny").text, encoder="hashed")
    with pytest.raises(ValueError, match=r"scorer 'classifier' .* go by classes"):
        replace(get_recipe("tiny"), text=captioned, reward=replace(absent, scorer="classifier"))
