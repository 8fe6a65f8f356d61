"""The actions of AdaNAT: the four decoding parameters of a masked token generator."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from policyrl.actions import ActionSpec
from policyrl.components import ActionComponent

DECODING_COMPONENTS = (
    "mask_ratio",
    "remask_temperature",
    "sampling_temperature",
    "guidance_scale",
)
# Without effect at the last step, whose full draw is the image.
_INERT_AT_THE_END = ("mask_ratio", "remask_temperature")


def _components(
    guidance_dead_zone: float, mask_ratio_dead_zone: float = 0.0
) -> tuple[ActionComponent, ...]:
    mask, remask, sampling, guidance = DECODING_COMPONENTS
    return (
        ActionComponent(name=mask, squash="sigmoid", dead_zone=mask_ratio_dead_zone),
        ActionComponent(name=remask, squash="softplus"),
        ActionComponent(name=sampling, squash="softplus"),
        ActionComponent(name=guidance, squash="softplus", dead_zone=guidance_dead_zone),
    )


def decoding_spec(
    prior: Tensor,
    *,
    learned: Sequence[str] = DECODING_COMPONENTS,
    last_step_inert: bool = True,
    guidance_dead_zone: float = 0.05,
    mask_ratio_dead_zone: float = 0.0,
    smoothing: float = 0.0,
) -> ActionSpec:
    """The four decoding parameters around a schedule.

    Args:
        prior: (T, 4) activated values, columns as `DECODING_COMPONENTS`; a policy starts from them.
        learned: the components that the policy sets; the others stay at the prior.
        last_step_inert: leave the last step's mask ratio and re-mask temperature out of the action,
            since they have no effect. The published system keeps them in.
        guidance_dead_zone: guidance below it is exactly 0. A decoder that runs the unguided branch
            only after the choice, and only where it is not 0, saves that pass: natgen does so on
            the CPU. On a GPU it runs both branches at once, whatever is chosen.
        mask_ratio_dead_zone: a mask ratio below it is exactly 0: everything is revealed, and the
            image is complete. Without it a policy ends early only below one token in L, which lies
            beyond the reach of exploration around a usual schedule.
        smoothing: of the actions before the squashing, see `ActionSpec`; AdaGen takes 0.8.

    Raises:
        ValueError: on an unknown name in `learned`, or a prior that cannot be reached.
    """
    unknown = set(learned) - set(DECODING_COMPONENTS)
    if unknown or not learned:
        raise ValueError(
            f"learned is {tuple(learned)}, must be some or all of {DECODING_COMPONENTS}"
        )
    active = torch.tensor([name in learned for name in DECODING_COMPONENTS])
    active = active.expand(prior.shape[0], -1).clone()
    if last_step_inert:
        active[-1, [DECODING_COMPONENTS.index(name) for name in _INERT_AT_THE_END]] = False
    components = _components(guidance_dead_zone, mask_ratio_dead_zone)
    return ActionSpec(components, prior, active, smoothing=smoothing)


def published_decoding_spec(num_steps: int, *, residual: bool) -> ActionSpec:
    """The published system's actions: all four at every step, no dead zone.

    With rho_t = (t + 1 - 0.001) / T, the residual stands for the mask ratio cos(pi rho / 2), the
    re-mask temperature 1 - rho, the sampling temperature 1 and the guidance scale (t + 0.001) / T
    (AdaNAT `train.py`, BiasAct). Without it a value is just the squashed raw action.
    """
    components = _components(guidance_dead_zone=0.0)
    if not residual:
        return ActionSpec.without_prior(components, num_steps)
    step = torch.arange(num_steps, dtype=torch.float64)
    rho = (step + 1 - 0.001) / num_steps
    columns = (
        torch.cos(math.pi / 2 * rho),
        1 - rho,
        torch.ones_like(rho),
        (step + 0.001) / num_steps,
    )
    return ActionSpec(components, torch.stack(columns, dim=1))
