"""nnUNetv2_train on one thread for a few epochs, in the environment of `make nnunet`.

BRIEF_EPOCHS=3 python -m benchmarks.nnunet_brief 501 3d_fullres 0 -device cpu -pretrained_weights checkpoint.pth

nnU-Net finds its trainer by a name, and imports all others on the way, for which it needs a torchvision that fits the
torch of the environment. This one has the name of its parent, which is found first, and is handed over.
"""

import os
import time
from pathlib import Path

import torch
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as published

from ssl_utils.files import write_json


class nnUNetTrainer(published.nnUNetTrainer):
    """Epochs of 5 steps, and one validation batch for every 5 as published; leaves what it began with, and its cost."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["BRIEF_EPOCHS"])
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 5, 1

    def run_training(self):
        torch.set_num_threads(1)
        if not self.was_initialized:
            self.initialize()
        torch.save(self.network.state_dict(), Path(self.output_folder) / "start.pth")
        started = time.process_time()
        super().run_training()
        steps = self.num_epochs * self.num_iterations_per_epoch
        spent = {"seconds": round(time.process_time() - started, 1), "steps": steps}
        write_json(Path(self.output_folder) / "spent.json", spent)

    def perform_actual_validation(self, save_probabilities=False):
        """Left out: the test set is predicted instead."""


if __name__ == "__main__":
    run_training.recursive_find_trainer_class_by_name = lambda name: nnUNetTrainer
    run_training.run_training_entry()
