"""Two processes take the optimizer steps of one."""

import pytest
import torch
import torch.multiprocessing as mp
from shared_ppo import EPISODES, train, worker


@pytest.mark.parametrize("early", [False, True])
def test_two_processes_train_as_one(tmp_path, early):
    whole = train(False, early)
    # Spawned: after a fork PyTorch refuses a backward pass if another test had threads for one.
    mp.start_processes(worker, (str(tmp_path), early), nprocs=2, start_method="spawn")
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for update in range(2):
        joined = [number for half in halves for number in half["episodes"][update]]
        assert joined == whole["episodes"][update]
        assert joined == list(range(update * EPISODES, (update + 1) * EPISODES))
    for half in halves:
        for ours, expected in zip(half["gradients"], whole["gradients"], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(half["weights"], whole["weights"], rtol=1e-5, atol=1e-6)
        for ours, expected in zip(half["metrics"], whole["metrics"], strict=True):
            assert ours == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert torch.equal(half["generator"], whole["generator"])
