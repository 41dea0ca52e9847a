"""CaRot: contrastive fine-tuning with an orthogonal visual projection, taught by its own average.

Source: Oh et al. 2024 (arXiv 2311.01723), section 4. The paper squares the constraint's Frobenius
norm. This module follows the authors' code, which doesn't (MLAI-Yonsei/CaRot,
src/models/carot_loss.py:170), since their weights were chosen with it. Divergences are means over
the batch, as in the code (line 202).

Deviations from the code: the teacher is updated after a share of training instead of every 500
steps, and not after the first step (line 218). The norm of the product of both projections is
missing (line 162): the README uses it with weight 0.05, but the paper doesn't have it.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rib.methods import NonNegative, Share, UpToOne
from rib.methods._distil import divergence
from rib.methods.base import Pairs, Task
from rib.methods.flyp import TOWER, FinetuneLikeYouPretrain, contrastive_loss
from rib.models.device import autocast

FIRST_MOMENTUM = 0.05  # first value of alpha, which then rises linearly
WARM_UP = 0.2  # fraction of all steps in which alpha rises
# Possible names of the last projection in CLIP's ResNets and in timm's networks.
PROJECTIONS = ("attnpool.c_proj", "head.proj", "trunk.head", "trunk.head.fc")


@dataclass(kw_only=True)
class CalibratedRobustFineTuning(FinetuneLikeYouPretrain):
    """Minimise FLYP's loss + orthogonality |W^T W - I|_F + distillation * D.

    D = KL(p_I || q_I) + KL(p_T || q_T), a mean over the batch. W (d, e) is the image tower's last
    projection, from d features to the e embeddings that texts have too; where the norm is zero, its
    gradient counts as zero. q_I is the softmax of an image's similarities to the texts of the
    batch, q_T the softmax of a text's similarities to the images; p_I and p_T are the teacher's.
    The teacher's weights psi become alpha psi + (1 - alpha) theta after each `interval` of
    training. Checkpoint and history have the same contents as FLYP's.
    """

    orthogonality: NonNegative  # lambda_OC in the paper
    distillation: NonNegative  # lambda_SD
    momentum: UpToOne  # alpha after the warm-up, the first fifth of training
    interval: Share  # share of all steps between updates of the teacher; at least one step

    def setup(self, task: Task) -> None:
        """Prepare for training: copy both towers as the teacher.

        Raises:
            ValueError: the model was pretrained with a sigmoid loss, or its image tower has no
                linear projection.
        """
        super().setup(task)
        if self.text.tower.logit_bias is not None:
            raise ValueError(
                "it distils a softmax over texts, but the model was pretrained with a sigmoid loss"
            )
        visual_projection(self.network.visual)  # fail now, not in the first step
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        teacher_tower = copy.deepcopy(self.text.tower).requires_grad_(False)
        self.teacher_text = replace(self.text, tower=teacher_tower)
        teacher_parameters = dict(self.teacher.named_parameters())
        for name, parameter in teacher_tower.named_parameters():
            teacher_parameters[TOWER + name] = parameter
        # Not copies: a value restored into `memory` is restored into the teacher.
        self.memory = {name: teacher_parameters[name] for name, _ in self.trainable()}

    @torch.no_grad()
    def teach(self, rows: np.ndarray, captions: Tensor) -> Pairs:
        """The teacher's features of a micro-batch: its rows (n,) and captions (n, L)."""
        with autocast(self.images.device):
            features = self.teacher.forward_features(self.images[rows])
        return Pairs(features, self.teacher_text.encode(captions))

    def contrast(self, pairs: Pairs, taught: Pairs | None) -> Tensor:
        """Contrastive loss of a batch, constraint on W, and distillation of the teacher."""
        assert taught is not None  # `teach` gives features
        # (N, N): images are rows, captions are columns.
        student = self.text.similarities(pairs.images, pairs.captions)
        teacher = self.teacher_text.similarities(taught.images, taught.captions)
        divergence_of_images = divergence(teacher, student, 1.0)
        divergence_of_texts = divergence(teacher.T, student.T, 1.0)
        distilled = divergence_of_images + divergence_of_texts
        constraint = distance_from_orthogonality(visual_projection(self.network.visual))
        loss = contrastive_loss(student, sigmoid=False)
        return loss + self.orthogonality * constraint + self.distillation * distilled

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimiser's step, and update the teacher after each `interval`."""
        super().update(optimizer)
        steps_between_updates = max(1, round(self.interval * self.steps))
        if (self.step + 1) % steps_between_updates == 0:
            self._update_teacher()

    @torch.no_grad()
    def _update_teacher(self) -> None:
        """Move the teacher towards the student, to alpha psi + (1 - alpha) theta."""
        share_of_warm_up = min(1.0, self.step / (WARM_UP * self.steps))
        alpha = FIRST_MOMENTUM + (self.momentum - FIRST_MOMENTUM) * share_of_warm_up
        for name, parameter in self.trainable():
            teacher_parameter = self.memory[name]
            teacher_parameter.mul_(alpha).add_(parameter, alpha=1 - alpha)


def distance_from_orthogonality(projection: Tensor) -> Tensor:
    """|W^T W - I|_F of a matrix W (d, e): 0 if its columns are orthonormal."""
    identity = torch.eye(projection.shape[1], device=projection.device)
    return torch.linalg.matrix_norm(projection.T @ projection - identity, ord="fro")


def visual_projection(visual: nn.Module) -> Tensor:
    """Weights (d, e) that map an open_clip image tower's features to embeddings.

    Raises:
        ValueError: the tower's last layer is not linear.
    """
    parameter = getattr(visual, "proj", None)
    if isinstance(parameter, nn.Parameter):  # open_clip's ViTs
        return parameter
    # Other towers have a layer, whose weights are (e, d).
    layers = dict(visual.named_modules())
    for name in PROJECTIONS:
        layer = layers.get(name)
        if isinstance(layer, nn.Linear):
            return layer.weight.T
    raise ValueError("its image tower has no linear projection to constrain")
