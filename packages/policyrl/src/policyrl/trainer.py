"""The PPO trainer: plays episodes, updates policy and value network, resumes exactly."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from policyrl.advantages import Targets, compute_targets, explained_variance, gather_valid
from policyrl.engine import LocalEngine
from policyrl.policy import GaussianPolicy
from policyrl.ppo import PPOConfig, PPOLoss, clip_values, ppo_loss
from policyrl.protocols import Engine, Environment, RewardModel
from policyrl.rollout import Rollout, collect


class PPOTrainer:
    """Alternate `collect` and `update`.

    Episodes are numbered 0, 1, 2, ... over the whole run. Exploration noise and minibatch order
    come from one generator on the CPU, saved with the state; a resumed trainer continues as if
    never stopped, on the CPU bit for bit.

    Several processes each have a trainer with the same weights, config and seed, and an engine that
    joins them. They share the episodes of an update in equal blocks; noise belongs to the episode,
    normalisation sees all of them, and each decision before its episode's end weighs the same. So
    with one minibatch a pass they take the steps that one process would take, and any of their
    states resumes all of them.

    Args:
        policy: the actor; trained in place.
        value_network: the critic, maps an observation of B rows to (B, 1); trained in place.
        config: hyper-parameters.
        engine: precision, backward pass and processes; default one process in full precision.
        seed: of exploration and minibatch order, the same in every process.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        value_network: nn.Module,
        config: PPOConfig,
        engine: Engine | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.policy = policy
        self.value_network = value_network
        self.config = config
        self.engine: Engine = LocalEngine() if engine is None else engine
        self.num_updates = 0
        self.num_episodes = 0
        self._generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(policy, value_network, config),
            lr=config.learning_rate,
            weight_decay=0.0,
        )

    def collect(
        self,
        env: Environment,
        num_episodes: int,
        reward_model: RewardModel | None = None,
        *,
        batch_size: int | None = None,
        shared_first_step: Callable[[Tensor], Tensor] | None = None,
        feature_dtype: torch.dtype | None = None,
        storage_device: torch.device | str | None = None,
        kept_outcome: Collection[str] | None = None,
    ) -> Rollout:
        """Play the next episodes with this update's exploration std.

        Environment and networks run under the engine's autocast, the reward model without any.

        Args:
            env: the environment, reset for every batch.
            num_episodes: how many episodes all processes play together; this one's share is
                returned.
            reward_model: judges the outcome of each batch.
            batch_size: episodes at a time; default all at once.
            shared_first_step: which episodes start from equal observations.
            feature_dtype: type in which observations are kept.
            storage_device: where observations are kept.
            kept_outcome: what is kept of the outcomes.

        The last six are handed to `policyrl.collect`.

        Raises:
            ValueError: where the episodes cannot be shared equally; others as `policyrl.collect`.
        """
        processes = self.engine.num_processes
        if num_episodes < 1 or num_episodes % processes:
            raise ValueError(
                f"num_episodes is {num_episodes}, must be a positive multiple of the number of "
                f"processes ({processes})"
            )
        std = self.config.std_at(self.num_updates)
        if std is not None:
            self.policy.set_std(std)
        shape = (self.policy.num_steps, num_episodes, self.policy.spec.num_actions)
        noise = torch.randn(shape, generator=self._generator)  # of all processes
        share = num_episodes // processes
        first = self.engine.process_index * share
        episodes = torch.arange(first, first + share, device=self.policy.std.device)
        with self.engine.autocast():
            rollout = collect(
                env,
                self.policy,
                self.value_network,
                self.num_episodes + episodes,
                noise[:, first : first + share],
                reward_model=reward_model,
                batch_size=batch_size,
                shared_first_step=shared_first_step,
                feature_dtype=feature_dtype,
                storage_device=storage_device,
                kept_outcome=kept_outcome,
            )
        self.num_episodes += num_episodes
        return rollout

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Improve both networks on one rollout: `update_epochs` passes over its decisions.

        Returns:
            loss, policy_loss, value_loss, entropy, approx_kl, clip_fraction and grad_norm as means
            over the last pass, before its optimizer steps; explained_variance of the values at
            collection time; reward_mean and reward_std (population) over episodes; std, the
            components' mean; epochs, the passes begun.

        Raises:
            FloatingPointError: on a gradient norm that is not finite; that optimizer step is not
                taken.
            ValueError: where processes hold unequal numbers of episodes, or all of them fewer
                decisions than there are minibatches.
        """
        config, gather = self.config, self.engine.gather
        decisions, counts = self._decisions(rollout.valid)
        targets = compute_targets(
            rollout.rewards,
            rollout.values,
            rollout.valid,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            normalize_returns=config.normalize_returns,
            normalize_advantages=config.normalize_advantages,
            gather=gather,
        )
        means: dict[str, float] = {}
        epochs = 0
        stop = False
        while epochs < config.update_epochs and not stop:
            epochs += 1
            history: list[dict[str, float]] = []
            for chosen in self._minibatches(decisions):
                metrics = self._backward(rollout, targets, decisions[chosen], counts[chosen])
                stop = (
                    config.target_kl is not None and metrics["approx_kl"] > 1.5 * config.target_kl
                )
                metrics["grad_norm"] = self._step(take=not stop)
                history.append(metrics)
                if stop:
                    break
            means = {key: sum(m[key] for m in history) / len(history) for key in history[0]}
        self.num_updates += 1
        rewards = gather(rollout.episode_rewards)
        means["explained_variance"] = explained_variance(
            gather_valid(rollout.values, rollout.valid, gather),
            gather_valid(targets.returns, rollout.valid, gather),
        )
        means["reward_mean"] = rewards.mean().item()
        means["reward_std"] = rewards.std(correction=0).item()
        means["std"] = self.policy.exploration_std.mean().item()
        means["epochs"] = float(epochs)
        return means

    def _decisions(self, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Decisions to learn from, (n,) int64, and whether each counts, (n,) bool.

        Episodes that end early leave the processes with different numbers of decisions, but a
        backward pass waits for all of them. So n is the largest of these numbers; a process with
        fewer repeats one, which does not count.
        """
        decisions = valid.flatten().nonzero().squeeze(1)
        # Ahead of all other gathers, which would wait forever for numbers that do not come.
        sizes = torch.tensor([[len(decisions), valid.shape[1]]], device=valid.device)
        held, episodes = self.engine.gather(sizes).T.tolist()
        if min(episodes) != max(episodes) or max(held) < self.config.num_minibatches:
            raise ValueError(
                f"the processes hold {held} decisions of {episodes} episodes, must be equally many "
                f"episodes and at least num_minibatches ({self.config.num_minibatches}) decisions"
            )
        repeated = decisions[:1].expand(max(held) - len(decisions))
        counts = torch.arange(max(held), device=valid.device) < len(decisions)
        return torch.cat([decisions, repeated]), counts

    def _minibatches(self, decisions: Tensor) -> Iterator[Tensor]:
        """Positions in the decisions, minibatch by minibatch."""
        count = len(decisions)
        if self.config.num_minibatches == 1:
            yield torch.arange(count, device=decisions.device)
            return
        order = torch.randperm(count, generator=self._generator).to(decisions.device)
        yield from order.tensor_split(self.config.num_minibatches)

    def _backward(
        self, rollout: Rollout, targets: Targets, decisions: Tensor, counts: Tensor
    ) -> dict[str, float]:
        """Accumulate the gradients of one minibatch, chunk by chunk; returns the loss parts."""
        self.optimizer.zero_grad(set_to_none=True)
        # The engine takes the mean over the processes: with these weights, that of all decisions.
        of_processes = self.engine.gather(counts.sum()[None])
        weights = counts * (len(of_processes) / of_processes.sum().clamp_min(1))
        sums = torch.zeros(len(PPOLoss._fields), device=decisions.device)
        size = self.config.chunk_size or len(decisions)
        for chunk, chunk_weights in zip(decisions.split(size), weights.split(size), strict=True):
            observation = rollout.observation(chunk)
            with self.engine.autocast():
                log_probs, entropy = self.policy.log_prob_entropy(
                    observation, rollout.raw_actions.flatten(0, 1)[chunk]
                )
                values = self.value_network(observation).squeeze(-1).float()
            parts = ppo_loss(
                log_probs=log_probs,
                old_log_probs=rollout.log_probs.flatten()[chunk],
                advantages=targets.advantages.flatten()[chunk],
                values=clip_values(
                    values, rollout.values.flatten()[chunk], self.config.value_clip_range
                ),
                returns=targets.returns.flatten()[chunk],
                entropy=entropy,
                clip_range=self.config.clip_range,
                vf_coef=self.config.vf_coef,
                ent_coef=self.config.ent_coef,
                weights=chunk_weights,
            )
            self.engine.backward(parts.loss)
            sums += torch.stack([part.detach() for part in parts])
        means = self.engine.gather(sums[None]).mean(dim=0)
        return dict(zip(PPOLoss._fields, means.tolist(), strict=True))

    def _step(self, *, take: bool) -> float:
        """One optimizer step, if it is to be taken; returns the gradient norm before clipping."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.config.max_grad_norm
        norm = nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit).item()
        if not norm < float("inf"):
            raise FloatingPointError(
                f"the gradient norm is {norm} in update {self.num_updates}; "
                "look for rewards or observations that are not finite"
            )
        if take:
            self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Everything that `update` and `collect` change, as tensors and builtins."""
        return {
            "policy": self.policy.state_dict(),
            "value_network": self.value_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "num_updates": self.num_updates,
            "num_episodes": self.num_episodes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of a trainer of the same sizes."""
        self.policy.load_state_dict(state["policy"])
        self.value_network.load_state_dict(state["value_network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"].cpu())
        self.num_updates = state["num_updates"]
        self.num_episodes = state["num_episodes"]


def _parameter_groups(
    policy: GaussianPolicy, value_network: nn.Module, config: PPOConfig
) -> list[dict[str, Any]]:
    """The parameters by learning rate; those without one of their own come first."""
    others = [parameter for parameter in policy.parameters() if parameter is not policy.offsets]
    value_rate = config.value_learning_rate or config.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": list(value_network.parameters()), "lr": value_rate},
    ]
    if policy.offsets is not None:
        offset_rate = config.offset_learning_rate or config.learning_rate
        groups.append({"params": [policy.offsets], "lr": offset_rate})
    return groups
