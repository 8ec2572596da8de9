"""Several data sets as one, each with its share."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.data.records import Record, Source, UnreadableRecord

_MOST = 2**48  # positions: far more than any run sees, far less than floats count exactly


class Mixture:
    """Sources with weights as one source.

    Source ``i`` with ``n_i`` records and the share ``w_i`` of the sum of the weights takes
    ``round(N w_i)`` of the positions, one after the other, where ``N = max_i(n_i / w_i)``: every
    record comes at least once in an epoch, and those of a source whose share is larger than its
    size come round again. The walk of :mod:`mmjax.data.pipeline` shuffles the positions: a batch
    holds the sources in their shares, but for chance, and what is at a position depends on nothing
    else. A record that comes twice in a batch is its own negative there, unless the run tells
    records apart by ``id``, see ``distinct`` of :class:`mmjax.data.preparation.Preparation`.

    The records' ``id`` and ``group`` get the name of their source in front: ``coco/17``.

    Args:
        sources: by name.
        weights: positive, by name; those of the sizes, if not given.

    Raises:
        ValueError: if there is no source, or the weights do not fit them.

    >>> records = Mixture({"a": [{"id": "1"}, {"id": "2"}], "b": [{"id": "1"}]}, {"a": 1, "b": 1})
    >>> [records[i]["id"] for i in range(len(records))]
    ['a/1', 'a/2', 'b/1', 'b/1']
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float] | None = None):
        sizes = {name: len(source) for name, source in sources.items()}
        if not sizes or not all(sizes.values()):
            raise ValueError(f"expected sources with records, got {sizes}")
        if weights is None:
            weights = sizes
        if set(weights) != set(sizes) or not all(0 < x < float("inf") for x in weights.values()):
            raise ValueError(
                f"expected a weight above 0 for each of {', '.join(sizes)}, got {dict(weights)}"
            )
        total = sum(weights.values())
        self._names = list(sizes)
        self._sources: Sequence[Source] = list(sources.values())
        shares = [weights[name] / total for name in sizes]
        most = max(sizes[name] / share for name, share in zip(sizes, shares, strict=True))
        if most > _MOST:
            raise ValueError(
                f"weights {dict(weights)} for sizes {sizes} make {most:.2g} positions; a weight "
                "that is small for its source makes the others come round that often"
            )
        counts = [
            max(sizes[name], round(most * share)) for name, share in zip(sizes, shares, strict=True)
        ]
        self._ends = np.cumsum(np.array([0, *counts], np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> Record:
        number, row = self.place(index)
        name = self._names[number]
        try:
            record = self._sources[number][row]
        except UnreadableRecord as error:
            identity = f"{name}/{error.identity}"
            raise UnreadableRecord(identity, error.cause, error.reason) from error
        named = {key: f"{name}/{record[key]}" for key in ("id", "group") if key in record}
        return {**record, **named}

    def place(self, index: int) -> tuple[int, int]:
        """Return the number of the source at a position and the row there.

        Raises:
            IndexError: if there is no such position.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index in [0, {len(self)}), got {index}")
        number = int(np.searchsorted(self._ends, index, side="right")) - 1
        return number, (index - int(self._ends[number])) % len(self._sources[number])
