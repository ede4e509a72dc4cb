"""Where the rooms meet: a dataset at a scale, and what is run on it. Chapters and the command line call these."""

from importlib import import_module

# Names of this room and the module of each. They are imported when they are used: run folders, scales and setups are
# read without PyTorch, whose import takes seconds.
EXPORTS = {
    "Setup": "setups",
    "setup": "setups",
    "write_plan": "setups",
    "build_network": "building",
    "build_task": "building",
    "load_task": "building",
    "predict": "prediction",
    "predict_case": "prediction",
    "Finetuning": "description",
    "Pretraining": "description",
    "evaluate": "finetuning",
    "finetune": "finetuning",
    "pretrain": "pretraining",
}


def __getattr__(name: str):
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{EXPORTS[name]}"), name)
