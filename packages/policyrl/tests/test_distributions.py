"""Log-probability and entropy against torch.distributions, with and without a mask."""

import torch
from policyrl import gaussian_entropy, gaussian_log_prob
from torch.distributions import Independent, Normal


def _numbers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    raw, mean = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    return raw, mean.requires_grad_(), torch.tensor(0.37, dtype=torch.float64)


def test_everything_active_is_the_diagonal_gaussian():
    raw, mean, std = _numbers()
    active = torch.ones(7, 4, dtype=torch.bool)
    oracle = Independent(Normal(mean, std), 1)
    log_prob = gaussian_log_prob(raw, mean, std, active)
    torch.testing.assert_close(log_prob, oracle.log_prob(raw), rtol=1e-12, atol=1e-12)
    entropy = gaussian_entropy(std, active)
    torch.testing.assert_close(entropy, oracle.entropy(), rtol=1e-12, atol=1e-12)


def test_inactive_components_add_neither_value_nor_gradient():
    raw, mean, std = _numbers()
    active = torch.rand(7, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    active[0] = False
    oracle = Normal(mean, std)
    log_prob = gaussian_log_prob(raw, mean, std, active)
    expected = (oracle.log_prob(raw) * active).sum(-1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-12)
    entropy = gaussian_entropy(std, active)
    torch.testing.assert_close(entropy, (oracle.entropy() * active).sum(-1), rtol=1e-12, atol=0)
    assert log_prob[0] == 0
    assert entropy[0] == 0
    (gradient,) = torch.autograd.grad(log_prob.sum(), mean)
    assert torch.equal(gradient != 0, active)


def test_an_infinite_inactive_action_does_no_harm():
    raw, mean, std = _numbers()
    raw[:, 2] = torch.inf
    active = torch.tensor([True, True, False, True]).expand(7, 4)
    assert gaussian_log_prob(raw, mean, std, active).isfinite().all()
