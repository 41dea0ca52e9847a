"""CaRot: contrastive fine-tuning with an orthogonal visual projection, taught by its own average.

Source: Oh et al. 2024 (arXiv 2311.01723), section 4. The constraint is the Frobenius norm, as in
the authors' code (MLAI-Yonsei/CaRot, src/models/carot_loss.py:170), since their weights were chosen
with it; the paper writes its square. Divergences are means over the batch, as there (line 202).

Deviations from their code: the teacher is updated after a share of training instead of every 500
steps, and not after the first step (line 218); there is no norm of the product of both projections
(line 162), which their README uses with weight 0.05 and the paper does not have.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rib.methods import NonNegative, Share, UpToOne
from rib.methods.base import Task
from rib.methods.flyp import TOWER, FinetuneLikeYouPretrain, contrastive_loss
from rib.methods.lwf import divergence
from rib.models.device import autocast

FIRST_MOMENTUM = 0.05  # alpha at first, from which it rises linearly
WARM_UP = 0.2  # fraction of all steps in which alpha rises
# Names of the last projection in CLIP's ResNets, and in timm's networks with and without one of
# their own.
PROJECTIONS = ("attnpool.c_proj", "head.proj", "trunk.head", "trunk.head.fc")


@dataclass(kw_only=True)
class CalibratedRobustFineTuning(FinetuneLikeYouPretrain):
    """Minimise FLYP's loss + orthogonality |W^T W - I|_F + distillation * D.

    D = KL(p_I || q_I) + KL(p_T || q_T). W (d, e) is the image tower's last projection, to the e
    features that texts have too; where the norm is zero, its gradient counts as zero. q_I and q_T
    are the softmax of the similarities of an image to the texts of the batch, and of a text to its
    images; p_I and p_T are those of the teacher, whose weights psi become
    alpha psi + (1 - alpha) theta after each `interval` of training. Divergences are means over the
    batch. What is stored and what the history says is as for FLYP.
    """

    orthogonality: NonNegative  # lambda_OC in the paper
    distillation: NonNegative  # lambda_SD
    momentum: UpToOne  # alpha after a warm-up in the first fifth of training
    interval: Share  # of all steps, between updates of the teacher; at least one step

    def setup(self, task: Task) -> None:
        """Prepare for training: the teacher is a copy of both towers, as they are now.

        Raises:
            ValueError: the model was pretrained with a sigmoid loss, or its image tower has no
                linear projection.
        """
        super().setup(task)
        if self.text.tower.logit_bias is not None:
            raise ValueError(
                "it distils a softmax over texts, but the model was pretrained with a sigmoid loss"
            )
        visual_projection(self.network.visual)  # an error now if there is none
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        teacher_tower = copy.deepcopy(self.text.tower).requires_grad_(False)
        self.teacher_text = replace(self.text, tower=teacher_tower)
        teacher_parameters = dict(self.teacher.named_parameters())
        for name, parameter in teacher_tower.named_parameters():
            teacher_parameters[TOWER + name] = parameter
        self.memory = {name: teacher_parameters[name] for name, _ in self.trainable()}

    def error(self, rows: np.ndarray, cross_entropy: Tensor) -> Tensor:
        """Loss of a batch: contrastive, plus the constraint on W, plus the distillation."""
        captions = self.captions(rows)
        # Similarities (N, N) of the images (rows) and their captions (columns).
        student = self.text.similarities(self.features, captions)
        teacher = self._teacher_similarities(rows, captions)
        divergence_of_images = divergence(teacher, student, 1.0)
        divergence_of_texts = divergence(teacher.T, student.T, 1.0)
        distilled = divergence_of_images + divergence_of_texts
        constraint = distance_from_orthogonality(visual_projection(self.network.visual))
        loss = contrastive_loss(student, sigmoid=False)
        return loss + self.orthogonality * constraint + self.distillation * distilled

    @torch.no_grad()
    def _teacher_similarities(self, rows: np.ndarray, captions: Tensor) -> Tensor:
        """The teacher's similarities (N, N) of images of the target and captions, tokens (N, L)."""
        with autocast(self.images.device):
            features = self.teacher.forward_features(self.images[rows])
        return self.teacher_text.similarities(features, captions)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimiser's step; after each `interval` of training, update the teacher."""
        super().update(optimizer)
        steps_between_updates = max(1, round(self.interval * self.steps))
        if (self.step + 1) % steps_between_updates == 0:
            self._update_teacher()

    @torch.no_grad()
    def _update_teacher(self) -> None:
        """Set the teacher's weights psi to alpha psi + (1 - alpha) theta, theta the student's.

        alpha rises linearly in the warm-up, from FIRST_MOMENTUM to the setting `momentum`.
        """
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
    """Weights (d, e) of the last layer of an open_clip image tower: features to embeddings.

    Raises:
        ValueError: the layer is not linear.
    """
    parameter = getattr(visual, "proj", None)
    if isinstance(parameter, nn.Parameter):  # open_clip's ViTs
        return parameter
    # Other towers have a layer, with the weights transposed.
    layers = dict(visual.named_modules())
    for name in PROJECTIONS:
        layer = layers.get(name)
        if isinstance(layer, nn.Linear):
            return layer.weight.T
    raise ValueError("its image tower has no linear projection to constrain")
