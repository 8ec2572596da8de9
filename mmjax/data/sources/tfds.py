"""Data sets that TensorFlow Datasets prepared as ArrayRecord or Parquet; TensorFlow is not needed.

``tfds build --file_format=array_record`` writes such a folder.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.records import Record, UnreadableRecord
from mmjax.data.sources.fields import Fields
from mmjax.data.sources.per_process import PerProcess


class Prepared:
    """One split of a prepared data set as a source; images stay encoded until they are prepared.

    Args:
        root: the folder of one version of the data set.
        split: which; TFDS's slices, as in ``train[:90%]``, count.
        fields: which features make the record.
    """

    def __init__(self, root: pathlib.Path, split: str, fields: Fields):
        self._root, self._split, self._fields = root, split, fields
        self._opened: PerProcess[str, Any] = PerProcess(functools.partial(_open, root), limit=1)
        self._count = len(self._opened[split])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < self._count:
            raise IndexError(f"expected an index in [0, {self._count}), got {index}")
        place = f"{self._root}, {self._split}, record {index}"
        try:
            row = self._opened[self._split][index]
        except Exception as error:  # Its readers and decoders have no error of their own.
            raise UnreadableRecord(place, "broken tfds record", f"{error}") from error
        return self._fields.record(row, identity=f"{self._split}/{index}")


def load_tfds(
    split: str,
    *,
    root: str | os.PathLike[str],
    fields: Mapping[str, str | Sequence[str]],
) -> Prepared:
    """Open one split of a prepared data set.

    Args:
        split: its name, or a slice of it as TFDS writes it: ``train[:90%]``.
        root: the folder of one version, such as ``~/tensorflow_datasets/coco_captions/2014/1.1.0``.
        fields: features by key of the record, see :class:`mmjax.data.sources.fields.Fields`;
            ``captions.text`` goes into a feature.

    Returns:
        The examples; a ``ClassLabel`` gives its name. Unless a feature is named for it, the id is
        the split and the number of the example.

    Raises:
        FileNotFoundError: if there is no prepared data set.
        ValueError: if its files have another format, or it has no such split or feature.
    """
    folder = pathlib.Path(root).expanduser()
    if not (folder / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"no prepared data set at {folder}: it has no dataset_info.json. root is the folder of "
            "one version, such as ~/tensorflow_datasets/mnist/3.0.1"
        )
    builder = _builder(folder)
    features = builder.info.features
    labels = {
        name: feature.names for name, feature in features.items() if hasattr(feature, "int2str")
    }
    fields_of = Fields(fields, labels=labels)
    fields_of.check(list(features), f"the data set at {folder}")
    return Prepared(folder, split, fields_of)


def _builder(root: pathlib.Path) -> Any:
    # Here, because it is slow to import and only this source needs it.
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(os.fspath(root))


def _open(root: pathlib.Path, split: str) -> Any:
    """Open a split so that images are left as the bytes that they are stored as."""
    import tensorflow_datasets as tfds

    builder = _builder(root)
    images = [
        name
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    ]
    try:
        return builder.as_data_source(
            split=split, decoders={name: tfds.decode.SkipDecoding() for name in images}
        )
    except Exception as error:  # As many kinds as there are things wrong.
        raise ValueError(
            f"the data set at {root} cannot be read as {split!r}: {error}. Its splits are "
            f"{sorted(builder.info.splits)}; it has to be stored as array_record or parquet "
            f"(tfds build --file_format=array_record), and is {builder.info.file_format}"
        ) from error
