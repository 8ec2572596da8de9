"""SigLIP ViT-B/16 from scratch on web pairs in tar shards.

    python -m experiments.pretrain --config=configs/siglip_vit_b16.py \\
        --config.data.options.shards='/data/train-{00000..41455}.tar'

Batch size, peak rate, weight decay and second momentum are those of Zhai et al. 2023,
arXiv:2303.15343; sizes, 224 pixels and 64 tokens those of the models published with it. Our own:
9 billion pairs, the warm-up, AdamW in place of its Adafactor. Its weight decay of 1e-4 does not
scale with the peak rate of 1e-3, that of AdamW does: 0.1 here. 203.7 million parameters; the
published ones have 203.2: ours projects the image too, and has no bias on the keys, which
changes nothing, nor on the projection of the text. Nobody has trained it to the end with this
code. What it needs, before anything is spent: add ``--dry_run --virtual_devices=8 --device=H100``.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """224 pixels in patches of 16, 64 tokens, batch 32,768."""
    return ConfigDict(
        {
            "name": "siglip_vit_b16",
            "seed": 0,
            "steps": 274_658,
            "batch_size": 32_768,
            "micro_batches": 1,  # raise it where a batch does not fit into memory
            "loss": "siglip",
            "loss_chunk_size": 1024,  # rows scored together: bounds the memory of the loss
            "loss_ring": True,  # hand rows round instead of gathering all on each device
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
                    "augmentation": {"flip": 0.5},
                },
                "text": {
                    "tokenizer": "byte_pair",
                    "vocab_size": 32_000,
                    "training_texts": 1_000_000,  # the tokenizer learns from the first of them
                    "length": 64,
                    "word_dropout": 0.0,
                },
                "arrays": {},  # further modalities by name, each with the shape of its array
                # "group", "id" or "label": records of one are no negatives of each other
                "distinct": placeholder(str),
            },
            "model": {
                "embed_dim": 768,
                "dtype": "bfloat16",
                "logit_scale_init": 10.0,
                "logit_scale_max": 1000.0,
                "logit_bias_init": -10.0,
                "towers": {
                    "image": {
                        "encoder": "vision_transformer",
                        "patch_size": 16,
                        "width": 768,
                        "depth": 12,
                        "heads": 12,
                        "positions": "learned",
                        "pooling": "attention",
                        "patch_dropout": 0.0,
                        "dropout": 0.0,
                        "scan_layers": True,
                        "remat": True,
                    },
                    "text": {
                        "encoder": "text_transformer",
                        "vocab_size": 32_000,
                        "max_length": 64,
                        "width": 768,
                        "depth": 12,
                        "heads": 12,
                        "causal": False,
                        "pooling": "last",
                        "dropout": 0.0,
                        "scan_layers": True,
                        "remat": True,
                    },
                },
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "warmup_steps": 10_000,
                "final_share": 0.0,
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-6,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
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
