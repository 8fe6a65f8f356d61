"""Weights & Biases, for those who want it beside TensorBoard."""

import hashlib
from pathlib import Path

from adanat.errors import AdanatError


def mirror_to_wandb(project: str, folder: Path) -> None:
    """Send everything that goes to TensorBoard from now on to a project of Weights & Biases.

    Args:
        project: The project's name.
        folder: The run folder: its path names the run, so that a resumed one goes on.

    Raises:
        AdanatError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise AdanatError(
            "--wandb needs the package wandb: pip install 'adanat[wandb]', or leave it out; "
            "TensorBoard's events are in the run folder either way"
        ) from error
    identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    wandb.init(
        project=project, name=folder.name, id=identity, resume="allow", sync_tensorboard=True
    )
