"""What could not be read, counted by cause; past a stated share the data is not used at all."""

import collections
import threading

LISTED = 10_000  # records whose reasons are kept: the memory of a ledger is bounded


class TooManyUnreadable(RuntimeError):
    """More of the records than allowed cannot be read: the data is broken, not a few of them."""


class Skipped:
    """Ledger of the records that could not be read, or not in full. Safe to use from many threads.

    Args:
        max_share: largest share of such records among those read so far.
        grace: how many records have to be read before the share counts.

    Raises:
        ValueError: if ``max_share`` is outside [0, 1].
    """

    def __init__(self, max_share: float = 0.05, grace: int = 100):
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_share must lie in [0, 1], got {max_share}")
        self.max_share, self.grace = max_share, grace
        self._lock = threading.Lock()
        self._read = self._failed = 0
        self._reasons: dict[str, str] = {}
        self._causes: collections.Counter[str] = collections.Counter()

    @property
    def reasons(self) -> dict[str, str]:
        """Why each of the first 10,000 records was skipped, by id; a copy."""
        with self._lock:
            return dict(self._reasons)

    @property
    def causes(self) -> dict[str, int]:
        """How many records were skipped for each cause, the most frequent first; a copy."""
        with self._lock:
            return dict(self._causes.most_common())

    def count(self, identity: str, reason: str | None = None, *, cause: str = "unreadable") -> None:
        """Count one record that was read or, with a reason, one that was not.

        A record that comes again counts again towards the share, and once among its cause: up to
        10,000 records are told apart, those after them count whenever they come.

        Args:
            identity: the record's id, or its file and place there.
            reason: what is wrong; None if nothing is.
            cause: a few words that all records with this trouble share.

        Raises:
            TooManyUnreadable: past ``max_share``, with the numbers, the causes and the first
                records.
        """
        with self._lock:
            self._read += 1
            if reason is not None:
                self._failed += 1
                if identity not in self._reasons:
                    self._causes[cause] += 1
                    if len(self._reasons) < LISTED:
                        self._reasons[identity] = reason
            if self._read >= self.grace and self._failed > self.max_share * self._read:
                raise TooManyUnreadable(
                    f"{self._failed} of the {self._read} records read so far are unreadable, "
                    f"{self._failed / self._read:.1%}; at most {self.max_share:.1%} may be "
                    f"({self._by_cause()}). The first: {self._first(3)}"
                )

    def summary(self) -> str:
        """Say in one line how many records were skipped, which and why.

        >>> ledger = Skipped()
        >>> ledger.count("cat.jpg", "no bytes at all", cause="empty image")
        >>> ledger.summary()
        '1 record skipped: cat.jpg (no bytes at all); by cause: empty image 1'
        """
        with self._lock:
            count = self._causes.total()
            if not count:
                return "no record skipped"
            more = f" and {count - 3} more" if count > 3 else ""
            return (
                f"{count} record{'s'[: count > 1]} skipped: {self._first(3)}{more}; "
                f"by cause: {self._by_cause()}"
            )

    def _first(self, count: int) -> str:
        first = list(self._reasons.items())[:count]
        return "; ".join(f"{identity} ({reason})" for identity, reason in first)

    def _by_cause(self) -> str:
        return ", ".join(f"{cause} {count}" for cause, count in self._causes.most_common())
