"""What a field of a tower may hold; each check raises while the tower is being built."""


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError unless ``heads`` equal parts make up ``width``."""
    if heads < 1 or width % heads:
        raise ValueError(f"heads must divide width, got width={width} and heads={heads}")


def check_rate(name: str, rate: float) -> None:
    """Raise ValueError unless ``rate`` is a share that may be left out, from 0 to below 1."""
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {rate}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
