"""`python -m adanat`, which torchrun can start."""

from adanat.cli import main

if __name__ == "__main__":
    main()
