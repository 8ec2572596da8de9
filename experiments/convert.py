"""Turn any data set into ArrayRecord shards, which are quick to read in any order.

    python -m experiments.convert --source=webdataset --split=all --output=/data/cc3m \\
      --options='{"shards": "/raw/cc3m/{00000..00331}.tar"}'

A run then reads them with ``"source": "array_record"`` and
``"options": {"shards": "/data/cc3m/{split}-*.array_record"}``. The same command goes on where an
interrupted conversion stopped.
"""

import json

import tqdm
from absl import flags

from experiments.command_line import run_command
from mmjax.data.conversion import convert
from mmjax.data.sources import load_source

SOURCE = flags.DEFINE_string("source", None, "the data set, as in data.source", required=True)
OPTIONS = flags.DEFINE_string("options", "{}", "its options, as in data.options, as JSON")
SPLIT = flags.DEFINE_string("split", None, "which split to convert", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder for the shards", required=True)
RECORDS = flags.DEFINE_integer("records_per_shard", 10_000, "records of a shard")
THREADS = flags.DEFINE_integer("threads", 4, "shards that are written at the same time")
MAX_SHARE = flags.DEFINE_float(
    "max_unreadable_share", 0.01, "largest share of the records that may be left out"
)


def main() -> None:
    """Convert, with a progress bar, and say what was left out."""
    try:
        options = json.loads(OPTIONS.value)
    except ValueError as error:
        raise ValueError(f"--options is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"--options must be a JSON object, got {OPTIONS.value}")
    source = load_source(SOURCE.value, SPLIT.value, **options)
    with tqdm.tqdm(total=len(source), unit=" records", dynamic_ncols=True) as bar:
        done = convert(
            source,
            OUTPUT.value,
            SPLIT.value,
            origin={"source": SOURCE.value, "options": options, "split": SPLIT.value},
            records_per_shard=RECORDS.value,
            threads=THREADS.value,
            max_unreadable_share=MAX_SHARE.value,
            progress=lambda count: bar.update(count),
        )
    print(f"{done.records} records, {done.size / 2**20:.1f} MiB: {done.shards}")
    for cause, count in done.skipped.items():
        print(f"  left out, {cause}: {count} (named in the .skipped.jsonl files)")


if __name__ == "__main__":
    run_command(main)
