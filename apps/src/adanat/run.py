"""A run: one recipe in one folder, its stages and what each depends on."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from natgen import NAT, TextEncoder
from policyrl import GaussianPolicy
from safetensors import SafetensorError
from vqtok import Tokenizer, TokenStore

from adanat.conditions import CaptionConditions, ClassConditions, RunConditions
from adanat.data import ImageSet, load_split
from adanat.engine import AccelerateEngine
from adanat.errors import StageError
from adanat.prepare import item_captions, open_split, read_prepared
from adanat.recipes.base import PreparedRecipe, Recipe
from adanat.run_folder import RunFolder
from adanat.runs import Stage
from adanat.text import load_text_encoder
from adanat.text.features import CaptionFeatures, EncodedCaptions, StoredCaptions, store_captions

Model = TypeVar("Model")


def load_model(load: Callable[[Path], Model], folder: Path) -> Model:
    """Read a model folder.

    Args:
        load: a model class's `from_pretrained`.
        folder: with `config.json` and `model.safetensors`.

    Raises:
        StageError: the folder is missing, damaged, or its weights do not fit its config.
    """
    if not (folder / "model.safetensors").is_file():  # or the hub would be asked for it
        raise StageError(f"{folder} has no model.safetensors: train the model, or restore the file")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the hub's mixin announces every file
            return load(folder)
    except (OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise StageError(f"cannot load the model in {folder}: {error}") from error


def evenly(count: int, total: int) -> slice:
    """At most so many of all items at equal distances: neighbours may be captions of one image."""
    step = max(1, total // count)
    return slice(0, min(count, total) * step, step)


class StageGraph(NamedTuple):
    """The stages of a run; each knows the stages whose output it reads."""

    data: Stage
    tokenizer: Stage
    tokens: Stage
    generator: Stage
    schedule: Stage
    static_search: Stage
    policies: dict[int, Stage]
    """One per policy seed."""
    more_steps: Stage
    evaluation: Stage
    searches_static: bool
    """Whether the static search is part of the run."""

    def all(self) -> list[Stage]:
        """Every stage, part of `run` or not."""
        return list({"search-static": self.static_search, **self.in_order()}.values())

    def in_order(self) -> dict[str, Stage]:
        """The stages of `run` by the name under which their seconds are reported."""
        search = {"search-static": self.static_search} if self.searches_static else {}
        policies = {f"train-policy-{seed}": stage for seed, stage in self.policies.items()}
        return {
            "data": self.data,
            "train-tokenizer": self.tokenizer,
            "tokenize": self.tokens,
            "train-generator": self.generator,
            "search-schedule": self.schedule,
            **search,
            **policies,
            "search-more-steps": self.more_steps,
            "evaluate": self.evaluation,
        }


@dataclass(frozen=True)
class Run:
    """One recipe in one output folder.

    Args:
        recipe: what to do.
        output_dir: the run folder; created by the first stage.
        data_dir: folder of the data set's own files, for sources that have files.
        base: the run that this one is a variant of: every stage that has the same settings and
            inputs there is shared with it, whoever comes to it first.
    """

    recipe: Recipe
    output_dir: Path
    data_dir: Path | None = None
    base: "Run | None" = None

    @cached_property
    def folder(self) -> RunFolder:
        if self.base is None:
            return RunFolder(self.output_dir)
        alone, theirs = replace(self, base=None).stages, self.base.stages
        there = {stage.fingerprint: stage.folder for stage in theirs.all()}
        shared = {
            stage.folder.relative_to(self.output_dir).as_posix(): there[stage.fingerprint]
            for stage in alone.all()
            if stage.fingerprint in there
        }
        base = self.base.folder
        return RunFolder(self.output_dir, {**shared, "features": base.features, "text": base.text})

    @cached_property
    def engine(self) -> AccelerateEngine:
        """Precision and processes."""
        return AccelerateEngine(self.recipe.precision)

    @property
    def device(self) -> torch.device:
        return self.engine.device

    @cached_property
    def stages(self) -> StageGraph:
        recipe, folder = self.recipe, self.folder
        stage = partial(Stage, processes=self.engine)
        data = stage("data", folder.data, recipe.data)
        shared: dict[str, object] = {"seed": recipe.seed}
        if recipe.precision != "no":
            shared["precision"] = recipe.precision
        tokenizer = stage(
            "train-tokenizer",
            folder.tokenizer,
            shared | {"tokenizer": recipe.tokenizer},
            depends_on=[data],
        )
        tokens = stage(
            "tokenize",
            folder.tokens,
            {"mirrored": recipe.tokens.mirrored},
            depends_on=[data, tokenizer],
        )
        text = {"encoder": recipe.text.encoder, "num_tokens": recipe.text.num_tokens}
        conditions = {} if recipe.text.encoder is None else {"text": text}
        generator = stage(
            "train-generator",
            folder.generator,
            shared | conditions | {"generator": recipe.generator_key},
            depends_on=[tokens],
            lengths=(
                ["generator.training.total_steps"]
                if recipe.generator.training.lr_schedule == "constant"
                else []
            ),
        )
        decoding = shared | {
            "num_decoding_steps": recipe.num_decoding_steps,
            "feature_size": recipe.evaluation.feature_size,
            "num_reference": recipe.evaluation.num_reference,
        }
        schedule = stage(
            "search-schedule",
            folder.schedule,
            decoding | {"schedule": replace(recipe.schedule, comparison_steps=())},
            depends_on=[generator],
        )
        more_steps = stage(
            "search-more-steps",
            folder.more_steps,
            {"comparison_steps": recipe.schedule.comparison_steps},
            depends_on=[schedule],
        )
        budget = recipe.static_search.image_budget or recipe.images_per_policy
        static_search = stage(
            "search-static",
            folder.static_search,
            decoding
            | {
                "learned": recipe.policy.learned,
                "static_search": replace(recipe.static_search, included=True, image_budget=budget),
            },
            depends_on=[schedule],
            lengths=["static_search.image_budget"],
        )
        early = {"reveal_below": recipe.reveal_below} if recipe.reveal_below else {}
        compared = [static_search] if recipe.static_search.included else []
        policies = {
            seed: stage(
                f"train-policy-{seed}",
                folder.policy(seed),
                decoding | early | {"reward": recipe.reward, "policy": recipe.policy_key(seed)},
                depends_on=[schedule],
                lengths=["policy.num_updates"],
            )
            for seed in recipe.policy.seeds
        }
        evaluation = stage(
            "evaluate",
            folder.evaluation,
            decoding
            | early
            | {"evaluation": recipe.evaluation}
            | ({"scorer_steps": recipe.text.scorer_steps} if conditions else {}),
            depends_on=[*policies.values(), more_steps, *compared],
        )
        return StageGraph(
            data=data,
            tokenizer=tokenizer,
            tokens=tokens,
            generator=generator,
            schedule=schedule,
            static_search=static_search,
            policies=policies,
            more_steps=more_steps,
            evaluation=evaluation,
            searches_static=recipe.static_search.included,
        )

    def images(self, split: str) -> ImageSet:
        """The images of one split, padded or cropped to the recipe's size."""
        self.require(self.stages.data)
        size = self.recipe.data.image_size
        if isinstance(self.recipe.data, PreparedRecipe):
            found = open_split(self._prepared(), split, size)
        else:
            found = load_split(self.folder.data, split, size)
        if len(found.class_names) != self.recipe.data.num_classes:
            raise StageError(
                f"{self.folder.data} has {len(found.class_names)} classes, but the recipe says "
                f"data.num_classes = {self.recipe.data.num_classes}: set it to the former"
            )
        return found

    def _prepared(self) -> Path:
        """The folder of the prepared data, which may have moved but hold the same samples."""
        results = self.stages.data.results()
        folder = Path(results["prepared"]) if self.data_dir is None else self.data_dir
        if read_prepared(folder).fingerprint != results["fingerprint"]:
            raise StageError(
                f"{folder} holds other samples or another division of them than this run began "
                "with: give the --data-dir that it began with, or another --output-dir"
            )
        return folder

    def reference_images(self, split: str) -> ImageSet:
        """The images of one split that others are compared with, in memory."""
        found, count = self.images(split), self.recipe.evaluation.num_reference
        chosen = slice(count)
        if split == "fit" and count is not None:
            chosen = evenly(count, len(found.labels))
        return found._replace(
            images=found.images[chosen],
            labels=found.labels[chosen],
            captions=found.captions[chosen],
        )

    def tokens(self, split: str) -> TokenStore:
        """The codes of one split."""
        self.require(self.stages.tokens)
        return TokenStore(self.folder.token_store(split))

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The recipe's text encoder, on the run's device."""
        text = self.recipe.text
        if text.encoder is None:
            raise StageError(
                f"the recipe {self.recipe.name!r} is conditioned on classes: give --text.encoder, "
                "or leave the captions out"
            )
        return load_text_encoder(text.encoder, text.num_tokens, self.device)

    def conditions(self, split: str) -> RunConditions:
        """What the transformer and the discriminator are conditioned on, of one split."""
        text = self.recipe.text
        if text.encoder is None:
            return ClassConditions(self.recipe.data.num_classes)
        captions = self.images(split).captions
        if not captions:
            raise StageError(
                f"{self.folder.data} has no captions: choose another data source, or leave out "
                "--text.encoder"
            )
        features: CaptionFeatures
        if text.stored:  # behind them the empty one, which stands for "no text"
            folder = store_captions([*captions, ""], self.text_encoder, self.folder.text)
            features = StoredCaptions(folder, self.device)
        else:
            features = EncodedCaptions(
                partial(item_captions, captions), len(captions), self.text_encoder
            )
        return CaptionConditions(features, f"captions of the {split} images")

    def tokenizer(self) -> Tokenizer:
        """The trained tokenizer, in evaluation mode on the run's device."""
        self.require(self.stages.tokenizer)
        model = load_model(Tokenizer.from_pretrained, self.folder.tokenizer_model)
        return model.to(self.device).eval()

    def nat(self) -> NAT:
        """The trained transformer, in evaluation mode on the run's device."""
        self.require(self.stages.generator)
        return load_model(NAT.from_pretrained, self.folder.generator_model).to(self.device).eval()

    def policy(self, seed: int) -> GaussianPolicy:
        """The trained policy of one seed, in evaluation mode on the run's device."""
        if seed not in self.stages.policies:
            raise StageError(
                f"the recipe has no policy of seed {seed}; its seeds are "
                f"{', '.join(map(str, self.stages.policies))}"
            )
        self.require(self.stages.policies[seed])
        model = load_model(GaussianPolicy.from_pretrained, self.folder.policy_model(seed))
        return model.to(self.device).eval()

    def require(self, stage: Stage) -> None:
        """Raise StageError unless `stage` is finished."""
        if not stage.is_done():
            command = stage.name if not stage.name.startswith("train-policy") else "train-policy"
            raise StageError(
                f"{stage.folder} is not finished: run `adanat {command} {self.recipe.name} "
                f"--output-dir {self.output_dir}` first"
            )
