"""Checks that the parts share."""


def require_positive(owner: str, **values: float) -> None:
    """Raise ValueError for a value that is not; the message names it `OWNER.NAME`."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{owner}.{name} must be positive, got {value}")
