"""Icons and their designers' names: a real image-text model on two CPU cores.

    python -m experiments.pretrain --config=configs/icons.py

5,367 Material Design icons train; 1,000 random icons and 1,000 icons of whole families are held
out. Reaches R@1 of about 50 % on the random ones and 40 % on the families (chance 0.1 %) after two
minutes of training.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Frequent first words of names: the classes of the zero-shot test.
SUBJECTS = (
    "account",
    "archive",
    "arrow",
    "battery",
    "book",
    "calendar",
    "car",
    "clipboard",
    "cloud",
    "database",
    "email",
    "file",
    "filter",
    "folder",
    "home",
    "movie",
    "music",
    "printer",
    "shield",
    "timer",
)


def get_config() -> ConfigDict:
    """A convnet and a bag of words, 32-pixel drawings, batch 256."""
    return ConfigDict(
        {
            "name": "icons",
            "seed": 0,
            "steps": 700,
            "batch_size": 256,
            "micro_batches": 1,  # raise it where a batch does not fit into memory
            "loss": "clip",
            "loss_chunk_size": 1024,  # rows scored together: bounds the memory of the loss
            "loss_ring": False,  # hand rows round instead of gathering all on each device
            "ema_decay": 0.98,
            "data": {
                "source": "icons",
                "options": {"size": 32, "seed": 0},
                "train": "train",
                "threads": 4,
                "max_unreadable_share": 0.05,
                "image": {
                    "size": 32,
                    "channels": 1,
                    "augmentation": {"rotation": 5.0, "zoom": 0.1, "shift": 0.06},
                },
                "text": {
                    "tokenizer": "word",
                    "vocab_size": placeholder(int),
                    "training_texts": placeholder(int),  # that the tokenizer learns from, or all
                    "length": 8,
                    "word_dropout": 0.1,
                },
                "arrays": {},  # further modalities by name, each with the shape of its array
                # "group", "id" or "label": records of one are no negatives of each other
                "distinct": placeholder(str),
            },
            "model": {
                "embed_dim": 256,
                "dtype": "float32",
                "logit_scale_init": 1 / 0.07,
                "logit_scale_max": 100.0,
                "logit_bias_init": 0.0,
                "towers": {
                    "image": {
                        "encoder": "convnet",
                        "features": 256,
                        "widths": (32, 64, 128),
                        "blocks": (0, 0, 1),
                    },
                    "text": {"encoder": "bag_of_words", "width": 256},
                },
            },
            "optimizer": {
                "learning_rate": 4e-3,
                "warmup_steps": 100,
                "final_share": 0.01,
                "b1": 0.9,
                "b2": 0.98,
                "eps": 1e-5,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "evaluation": {
                "every": 100,
                "sets": ("random", "family"),
                "batch_size": 250,
                "relatives": True,
                "zero_shot": {"classes": SUBJECTS, "templates": ("{}",)},
            },
            "checkpoint": {
                "every": 100,
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
