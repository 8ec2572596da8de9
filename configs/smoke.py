"""A run of seconds that goes through every part: is the installation sound?

    python -m experiments.pretrain --config=configs/smoke.py

A tiny vision transformer and text transformer on the icons, with bf16 compute, dropout, patch
dropout, SigLIP and a moving average: 30 steps. It learns next to nothing; the loss falls.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Two layers of 32 features, batch 32."""
    return ConfigDict(
        {
            "name": "smoke",
            "seed": 0,
            "steps": 30,
            "batch_size": 32,
            "micro_batches": 1,  # raise it where a batch does not fit into memory
            "loss": "siglip",
            "loss_chunk_size": 1024,  # rows scored together: bounds the memory of the loss
            "loss_ring": False,  # hand rows round instead of gathering all on each device
            "ema_decay": 0.9,
            "data": {
                "source": "icons",
                "options": {"size": 32, "seed": 0},
                "train": "train",
                "threads": 2,
                "max_unreadable_share": 0.05,
                "image": {
                    "size": 32,
                    "channels": 1,
                    "augmentation": {"crop_scale": (0.6, 1.0), "flip": 0.5, "brightness": 0.1},
                },
                "text": {
                    "tokenizer": "word",
                    "vocab_size": placeholder(int),
                    "training_texts": placeholder(int),  # that the tokenizer learns from, or all
                    "length": 12,
                    "word_dropout": 0.0,
                },
                "arrays": {},  # further modalities by name, each with the shape of its array
                # "group", "id" or "label": records of one are no negatives of each other
                "distinct": placeholder(str),
            },
            "model": {
                "embed_dim": 32,
                "dtype": "bfloat16",
                "logit_scale_init": 10.0,
                "logit_scale_max": 100.0,
                "logit_bias_init": placeholder(float),  # the right one for the batch size
                "towers": {
                    "image": {
                        "encoder": "vision_transformer",
                        "patch_size": 8,
                        "width": 32,
                        "depth": 2,
                        "heads": 2,
                        "positions": "sincos",
                        "pooling": "attention",
                        "patch_dropout": 0.25,
                        "dropout": 0.1,
                        "scan_layers": True,
                        "remat": True,
                    },
                    "text": {
                        "encoder": "text_transformer",
                        "max_length": 12,
                        "width": 32,
                        "depth": 2,
                        "heads": 2,
                        "causal": True,
                        "pooling": "last",
                        "dropout": 0.1,
                        "scan_layers": True,
                        "remat": False,
                    },
                },
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "warmup_steps": 5,
                "final_share": 0.1,
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-6,
                "weight_decay": 0.05,
                "clip_norm": 1.0,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "evaluation": {
                "every": 0,
                "sets": ("random",),
                "batch_size": 200,
                "relatives": False,
                "zero_shot": {"classes": (), "templates": ("{}",)},
            },
            "checkpoint": {
                "every": 10,
                "keep": 2,  # the newest; the one before is there if the newest is damaged
                "keep_every": 0,  # and those of every so many steps
                "best": {"metric": placeholder(str), "keep": 1, "highest": True},
            },
            "bad_loss": {
                "policy": "stop",  # or "skip" the update, or "rollback" to the last checkpoint
                "spike": placeholder(float),  # a loss above this multiple of the median is bad too
                "limit": 10,  # then stop: updates skipped in a row, or rollbacks to one checkpoint
            },
            "profile_steps": (),  # (a, b): the profiler traces updates a to b
            "initialize_from": {"workdir": placeholder(str), "parts": ("image", "text")},
        }
    )
