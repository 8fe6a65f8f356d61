"""The commands of `adanat.cli`, one module a group: it is imported when one of them is run."""
