"""Errors that a user can act on: the command line prints their text without a traceback."""


class AdanatError(RuntimeError):
    """Something outside the program is wrong; the message says what, where, and how to fix it."""


class StorageError(AdanatError):
    """A file could not be written or read back (full disk, quota, permissions, damage)."""


class DataError(AdanatError):
    """A data set is missing, damaged, or not what its index says."""


class StageError(AdanatError):
    """A stage folder does not fit the run that wants to use it."""


class TrainingError(AdanatError):
    """Training cannot go on, for example because the loss is not finite."""
