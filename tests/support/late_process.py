"""Two processes of which one is late, twice; prints what happens to process 0.

Run by torchrun with a folder: `torchrun --nproc-per-node 2 late_process.py FOLDER`.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from adanat.engine import AccelerateEngine

TIMEOUT = 3.0


def meet(folder: Path) -> None:
    """Return when both have imported everything."""
    (folder / os.environ["RANK"]).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.05)


def main() -> None:
    meet(Path(sys.argv[1]))
    engine = AccelerateEngine(timeout=timedelta(seconds=TIMEOUT))

    def be_late() -> None:
        if not engine.is_main:
            time.sleep(1.5 * TIMEOUT)

    be_late()
    engine.wait()
    said = "waited"
    be_late()
    try:
        engine.gather(torch.zeros(1))
    except RuntimeError:
        said += ", then gave up"
    if engine.is_main:
        print(said, flush=True)
    os._exit(0)  # nobody is there to say goodbye to


if __name__ == "__main__":
    main()
