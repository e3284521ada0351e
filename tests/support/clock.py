"""Time that a test moves by hand."""


class ManualClock:
    """A clock as the core takes it: call it for the seconds, `advance` it to let time pass."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def __repr__(self) -> str:
        return f"<ManualClock {self.now:g}>"
