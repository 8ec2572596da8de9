"""Photos and captions from scratch: a vision transformer and a text transformer on Flickr8k.

    MMJAX_DATA=/where/the/data/is python -m experiments.pretrain --config=configs/flickr8k.py

6,000 photos train. Reaches R@10 of 15.5 % image to text (any of five captions) and 14.7 % text to
image on the 1,000 photos of dev after 19 minutes of training on two CPU cores; chance is 1 %.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """ViT of 64-pixel crops in patches of 8, text transformer on byte pairs, batch 256."""
    return ConfigDict(
        {
            "name": "flickr8k",
            "seed": 0,
            "steps": 1200,
            "batch_size": 256,
            "micro_batches": 1,  # raise it where a batch does not fit into memory
            "loss": "clip",
            "loss_chunk_size": 1024,  # rows scored together: bounds the memory of the loss
            "loss_ring": False,  # hand rows round instead of gathering all on each device
            "ema_decay": 0.99,
            "data": {
                "source": "flickr8k",
                "options": {},
                "train": "train",
                "threads": 4,
                "max_unreadable_share": 0.01,
                "image": {
                    "size": 64,
                    "channels": 3,
                    "augmentation": {
                        "crop_scale": (0.4, 1.0),
                        "flip": 0.5,
                        "brightness": 0.1,
                        "contrast": 0.2,
                    },
                },
                "text": {
                    "tokenizer": "byte_pair",
                    "vocab_size": 4096,
                    "training_texts": placeholder(int),  # that the tokenizer learns from, or all
                    "length": 20,
                    "word_dropout": 0.1,
                },
                "arrays": {},  # further modalities by name, each with the shape of its array
                # "group", "id" or "label": records of one are no negatives of each other
                "distinct": placeholder(str),
            },
            "model": {
                "embed_dim": 128,
                "dtype": "float32",
                "logit_scale_init": 1 / 0.07,
                "logit_scale_max": 100.0,
                "logit_bias_init": 0.0,
                "towers": {
                    "image": {
                        "encoder": "vision_transformer",
                        "patch_size": 8,
                        "width": 128,
                        "depth": 4,
                        "heads": 4,
                        "positions": "learned",
                        "pooling": "mean",
                        "patch_dropout": 0.5,
                        "dropout": 0.0,
                        "scan_layers": False,
                        "remat": False,
                    },
                    "text": {
                        "encoder": "text_transformer",
                        "max_length": 20,
                        "width": 128,
                        "depth": 2,
                        "heads": 4,
                        "causal": False,
                        "pooling": "mean",
                        "dropout": 0.0,
                        "scan_layers": False,
                        "remat": False,
                    },
                },
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "warmup_steps": 100,
                "final_share": 0.01,
                "b1": 0.9,
                "b2": 0.98,
                "eps": 1e-6,
                "weight_decay": 0.2,
                "clip_norm": 1.0,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "evaluation": {
                "every": 200,
                "sets": ("dev",),
                "batch_size": 250,
                "relatives": False,
                "zero_shot": {"classes": (), "templates": ("{}",)},
            },
            "checkpoint": {
                "every": 200,
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
