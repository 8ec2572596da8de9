"""CLIP ViT-L/14 from scratch on web pairs in tar shards, as it was published.

    python -m experiments.pretrain --config=configs/clip_vit_l14.py \\
        --config.data.options.shards='/data/train-{00000..41455}.tar'

Sizes, batch and optimizer are those of Radford et al. 2021, arXiv:2103.00020, tables 18 and 20, and
of the code published with it: 32 epochs of 400 million pairs. 427.6 million parameters, as there;
ours has no bias on the keys, which changes nothing, no normalisation before the first block, and
GELU where the original has its sigmoid approximation. Nobody has trained it to the end with this
code. What it needs, before anything is spent: add ``--dry_run --virtual_devices=8 --device=H100``.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """224 pixels in patches of 14, 77 tokens, batch 32,768."""
    return ConfigDict(
        {
            "name": "clip_vit_l14",
            "seed": 0,
            "steps": 390_625,
            "batch_size": 32_768,
            "micro_batches": 1,  # raise it where a batch does not fit into memory
            "loss": "clip",
            "loss_chunk_size": 1024,  # rows scored together: bounds the memory of the loss
            "loss_ring": False,  # hand rows round instead of gathering all on each device
            "ema_decay": placeholder(float),
            "data": {
                "source": "webdataset",
                "options": {"shards": "train-{00000..41455}.tar"},
                "train": "train",
                "threads": 32,
                "max_unreadable_share": 0.05,
                "image": {
                    "size": 224,
                    "channels": 3,
                    "augmentation": {"crop_scale": (0.9, 1.0)},
                },
                "text": {
                    "tokenizer": "byte_pair",
                    "vocab_size": 49_408,
                    "training_texts": 1_000_000,  # the tokenizer learns from the first of them
                    "length": 77,
                    "word_dropout": 0.0,
                },
                "arrays": {},  # further modalities by name, each with the shape of its array
                # "group", "id" or "label": records of one are no negatives of each other
                "distinct": placeholder(str),
            },
            "model": {
                "embed_dim": 768,
                "dtype": "bfloat16",
                "logit_scale_init": 1 / 0.07,
                "logit_scale_max": 100.0,
                "logit_bias_init": 0.0,
                "towers": {
                    "image": {
                        "encoder": "vision_transformer",
                        "patch_size": 14,
                        "width": 1024,
                        "depth": 24,
                        "heads": 16,
                        "positions": "learned",
                        "pooling": "class",
                        "patch_dropout": 0.0,
                        "dropout": 0.0,
                        "scan_layers": True,
                        "remat": True,
                    },
                    "text": {
                        "encoder": "text_transformer",
                        "vocab_size": 49_408,
                        "max_length": 77,
                        "width": 768,
                        "depth": 12,
                        "heads": 12,
                        "causal": True,
                        "pooling": "last",
                        "dropout": 0.0,
                        "scan_layers": True,
                        "remat": True,
                    },
                },
            },
            "optimizer": {
                "learning_rate": 4e-4,
                "warmup_steps": 2000,
                "final_share": 0.0,
                "b1": 0.9,
                "b2": 0.98,
                "eps": 1e-6,
                "weight_decay": 0.2,
                "clip_norm": float("inf"),
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "evaluation": {
                "every": 5000,
                "sets": ("val",),
                "batch_size": 1024,
                "relatives": False,
                "zero_shot": {"classes": (), "templates": ("{}",)},
            },
            "checkpoint": {
                "every": 1000,
                "keep": 2,  # the newest; the one before is there if the newest is damaged
                "keep_every": 50_000,  # and those of every so many steps
                "best": {"metric": placeholder(str), "keep": 1, "highest": True},
            },
            "bad_loss": {
                "policy": "skip",  # the update; or "stop", or "rollback" to the last checkpoint
                "spike": placeholder(float),  # a loss above this multiple of the median is bad too
                "limit": 10,  # then stop: updates skipped in a row, or rollbacks to one checkpoint
            },
            "profile_steps": (),  # (a, b): the profiler traces updates a to b
            "initialize_from": {"workdir": placeholder(str), "parts": ("image", "text")},
        }
    )
