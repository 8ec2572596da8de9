"""Which checkpoints of a run stay."""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Keep:
    """Rules; a checkpoint stays if any of them names it.

    Attributes:
        latest: how many of the newest that are scheduled, and the newest of all; with 2, one is
            left if the newest is damaged.
        every: those whose step is a multiple of it; 0 for none.
        best: how many of those with the best ``metric``; of equals the earlier.
        metric: a name in the metrics that they are saved with; None for no such rule.
        highest: whether more is better.
        scheduled: whether a run saves after a step by itself, without a notice to leave. What was
            saved on notice does not push out what a run may be rolled back to.
    """

    latest: int = 2
    every: int = 0
    best: int = 1
    metric: str | None = None
    highest: bool = True
    scheduled: Callable[[int], bool] = lambda step: True

    def stay(self, metrics: Mapping[int, Mapping[str, float]]) -> set[int]:
        """The steps whose checkpoints stay.

        Args:
            metrics: by step of each checkpoint, what it was saved with.

        >>> sorted(Keep(latest=1, every=4).stay(dict.fromkeys([2, 4, 6, 8, 9], {})))
        [4, 8, 9]
        """
        steps = sorted(metrics)
        stay = {*steps[-1:], *[step for step in steps if self.scheduled(step)][-self.latest :]}
        if self.every:
            stay |= {step for step in steps if step % self.every == 0}
        if (name := self.metric) is not None:
            scored = [step for step in steps if name in metrics[step]]
            scored.sort(key=lambda step: metrics[step][name], reverse=self.highest)
            stay |= set(scored[: self.best])
        return stay
