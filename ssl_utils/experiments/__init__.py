"""Experiments, as chapters and the command line run them: setup, pretraining, fine-tuning, prediction."""

from importlib import import_module

# Modules and their public names, imported on first use: run folders, scales and setups need no PyTorch, whose import
# takes seconds.
EXPORTS = {
    "setups": ("Setup", "examined", "setup", "write_plan"),
    "adopting": ("adopt",),
    "building": ("build_network", "build_task", "forecast", "load_task"),
    "prediction": ("predict", "predict_case"),
    "curves": ("head_start", "learning_curves"),
    "description": ("Finetuning", "Pretraining"),
    "finetuning": ("evaluate", "finetune"),
    "pretraining": ("pretrain",),
}


def __getattr__(name: str):
    for module, names in EXPORTS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
