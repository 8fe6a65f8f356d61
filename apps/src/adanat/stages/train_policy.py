"""Stage `train-policy`: PPO for the recipe's reward."""

import math
from typing import Any

import torch
from natgen import DecodingEnvironment, NoiseSource
from policyrl import ActionSpec, GaussianPolicy, PPOTrainer, Rollout
from torch import Tensor

from adanat.conditions import ConditionedReward
from adanat.generation import from_uint8
from adanat.judge import LITE2, Judge, Sampled
from adanat.loop import IntervalHook, PictureHook, train_loop
from adanat.metrics import frechet_score, precision_recall
from adanat.policy_models import FEATURE_DTYPES, policy_networks
from adanat.rewards import build_reward, save_discriminator
from adanat.run import Run
from adanat.schedule_points import tuned_point
from adanat.seeding import derive_seed
from adanat.step_price import StepPrice


def train_policies(run: Run) -> None:
    """Train one policy for each seed of the recipe."""
    for seed in run.recipe.policy.seeds:
        train_policy(run, seed)


def train_policy(run: Run, seed: int) -> None:
    """Train the policy of one seed; it starts as the tuned schedule, exactly.

    But for mask ratios below the recipe's `reveal_below`, which it starts with at 0.
    """
    stage = run.stages.policies[seed]
    if stage.is_done():
        return
    recipe = run.recipe.policy
    with stage:
        cycle = _Cycle(run, seed)
        selection = _Selection(run, cycle.policy)

        def load(state: dict[str, Any]) -> None:
            cycle.load_state_dict(state["cycle"])
            selection.load_state_dict(state["best"])

        train_loop(
            step_fn=cycle.step,
            total_steps=run.recipe.num_policy_cycles,
            folder=stage.folder,
            get_state=lambda: {"cycle": cycle.state_dict(), "best": selection.state_dict()},
            set_state=load,
            description=f"policy {seed}",
            save_every=max(1, run.recipe.checkpoint_every // 20),
            log_every=1,
            hooks=[IntervalHook(recipe.validate_every, selection.validate)],
            pictures=[PictureHook(recipe.validate_every, "samples", selection.pictures, columns=4)],
            engine=run.engine,
        )
        if not run.engine.is_main:
            return
        cycle.policy.save_pretrained(run.folder.last_policy_model(seed))
        policy = selection.restore_best()
        policy.fit_statistics(selection.parameters())
        policy.save_pretrained(run.folder.policy_model(seed))
        if cycle.adversary is not None:
            save_discriminator(run, seed, cycle.adversary)
        print(policy.describe())
        stage.finish({"validation_lite2_fd": selection.distance, "best_step": selection.step})


class _Cycle:
    """Rollout, PPO update, discriminator updates: what one step of the loop does."""

    def __init__(self, run: Run, seed: int) -> None:
        recipe = run.recipe
        self._reward_recipe, self._policy_recipe = recipe.reward, recipe.policy
        nat, tokenizer = run.nat(), run.tokenizer()
        torch.manual_seed(derive_seed(seed, "policy weights"))
        prior = tuned_point(run).schedule().values
        self.policy, value_network = policy_networks(recipe, nat, prior)
        self._trainer = PPOTrainer(
            self.policy,
            value_network,
            recipe.policy.ppo,
            run.engine,
            seed=derive_seed(seed, "policy exploration"),
        )
        run.engine.follow(self.policy, value_network)
        conditions = self._conditions = run.conditions("fit")
        self._environment = DecodingEnvironment(
            nat,
            num_steps=recipe.num_decoding_steps,
            conditions=lambda episodes: conditions.of_samples(episodes).generator,
            noise=NoiseSource(derive_seed(seed, "policy rollouts")),
        )
        self._pictures, self.adversary = build_reward(run, tokenizer, seed)
        self._reward = StepPrice(
            ConditionedReward(self._pictures, conditions), recipe.policy.step_price
        )

    def step(self, number: int) -> dict[str, float]:
        """One cycle; the first ones train the discriminator alone, where there is one."""
        recipe = self._reward_recipe
        warming_up = number < recipe.num_warmup_cycles
        rollout = self._trainer.collect(
            self._environment,
            self._policy_recipe.episodes_per_update,
            self._reward,
            batch_size=self._policy_recipe.rollout_batch_size,
            shared_first_step=self._conditions.numbers,
            feature_dtype=FEATURE_DTYPES[self._policy_recipe.feature_dtype],
            storage_device="cpu" if self._policy_recipe.features_on_host else None,
            kept_outcome=("num_steps",),  # text features would take a GB or more
        )
        metrics = {"reward_mean": rollout.episode_rewards.mean().item()}
        for name, value in self._pictures.take_means().items():
            metrics[f"reward_{name}"] = value
        if not warming_up:
            metrics |= self._trainer.update(rollout)
        if self.adversary is not None:
            updates = recipe.warmup_updates if warming_up else recipe.updates_per_cycle
            for name, value in self.adversary.learn(updates).items():
                metrics[f"discriminator_{name}"] = value
        metrics["steps_used"] = rollout.outcome["num_steps"].float().mean().item()
        return metrics | chosen_means(self.policy.spec, rollout)

    def state_dict(self) -> dict[str, Any]:
        return {
            "trainer": self._trainer.state_dict(),
            "adversary": {} if self.adversary is None else self.adversary.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._trainer.load_state_dict(state["trainer"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])


class _Selection:
    """Measures the policy on validation images and remembers the best one.

    With a price for steps the last one counts as the best: by the distance alone it would be one
    that has not yet learned to end early.
    """

    def __init__(self, run: Run, policy: GaussianPolicy) -> None:
        self._engine = run.engine
        self._policy = policy
        self._judge = Judge(run)
        self._seed = derive_seed(run.recipe.seed, "policy validation")
        self._num_samples = run.recipe.policy.validation_samples
        self._reference = self._judge.references("validation")[LITE2]
        self._takes_last = run.recipe.policy.step_price > 0
        self.distance = math.inf
        self.step = 0
        self._weights: dict[str, Tensor] = {}
        self._seen = torch.empty(0)

    def validate(self, step: int) -> dict[str, float]:
        """Frechet distance of the current policy to validation images, precision and recall."""
        sampled, reference = self._sample(), self._reference
        features, self._seen = sampled.features[LITE2], sampled.pictures
        precision, recall = precision_recall(
            features, reference.features, reference_pairs=reference.pairs
        )
        scores = {
            "validation_lite2_fd": frechet_score(features, reference),
            "validation_lite2_precision": precision,
            "validation_lite2_recall": recall,
        }
        scores = self._engine.mean(scores)
        distance = scores["validation_lite2_fd"]
        if self._takes_last or distance < self.distance:
            self.distance, self.step = distance, step
            self._weights = {k: v.clone() for k, v in self._policy.state_dict().items()}
        return scores

    def pictures(self) -> Tensor:
        """The first samples of the last validation, of one noise: only the policy changes."""
        return from_uint8(self._seen)

    def parameters(self) -> Tensor:
        """(N, T, 4) that the current policy chooses for the validation samples."""
        return self._judge.generator.parameters(
            self._policy, seed=self._seed, num_samples=self._num_samples
        )

    def _sample(self) -> Sampled:
        return self._judge.sample(
            self._policy,
            seed=self._seed,
            num_samples=self._num_samples,
            description="validation",
        )

    def restore_best(self) -> GaussianPolicy:
        """The policy with the weights of its best validation."""
        self._policy.load_state_dict(self._weights)
        return self._policy

    def state_dict(self) -> dict[str, Any]:
        return {"distance": self.distance, "step": self.step, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.distance, self.step = state["distance"], state["step"]
        self._weights = state["weights"]


def chosen_means(spec: ActionSpec, rollout: Rollout) -> dict[str, float]:
    """Means over the episodes of the numbers that the policy chose, as `mask_ratio/0`."""
    smoothed = torch.zeros_like(rollout.raw_actions[0])
    means = []
    for step, raw in enumerate(rollout.raw_actions):
        smoothed = spec.smooth(raw, smoothed)
        means += [values.mean() for values in spec.activate(smoothed, step).values()]
    names = [f"{name}/{step}" for step in range(spec.num_steps) for name in spec.names]
    return dict(zip(names, torch.stack(means).tolist(), strict=True))
