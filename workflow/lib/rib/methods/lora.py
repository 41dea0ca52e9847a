"""LoRA: frozen weights plus trained low-rank updates, with peft.

The query and value projections of self-attention are adapted. Attention pooling, as in SigLIP and PE, is none: its
query is one learned vector or the mean, not the tokens. timm and open_clip mostly fuse q, k and v into one weight with
3 d rows, so the update of the fused weight has rank 2 r. B is zero in the rows of k, in the rows of q for the second r
columns and in the rows of v for the first r columns. This is one update of rank r for q and one for v, each with its
own A, as it is for separate weights. In networks without self-attention pointwise convolutions are adapted, which are
nn.Linear in ConvNeXt. The head is frozen.

Source: Hu et al. 2021 (arXiv 2106.09685), equation 3 and section 4.2 (q and v). The released code of ImageNet-RIB
(utils/lora.py, main.py:76-82) also trains the class token, the position embedding and the norms outside the blocks: the
variant lora_released.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rib.methods import Count, Positive, algorithm
from rib.methods.base import FineTuning, Task
from rib.methods.linear_probe_released import outside_blocks
from rib.models.checkpoint import LORA_A, LORA_B, changed_tensors
from rib.models.network import head_parameters

ADAPTER = "default"
# In names of norms, class tokens and position embeddings.
TOKENS_AND_NORMS = (
    "norm",
    "ln_",
    "cls_token",
    "pos_embed",
    "class_embedding",
    "positional_embedding",
)


@algorithm
class LowRankAdaptation(FineTuning):
    """Minimise CE over A and B of W + alpha / r * B A."""

    rank: Count  # r
    alpha: Positive  # scale of the update times r
    also: Literal["none", "tokens_and_norms"]  # trained outside the blocks, as in the released code

    def setup(self, task: Task) -> None:
        super().setup(task)
        unfold_attention(self.model)
        fused, single = adapted_layers(self.model)
        if not fused and not single:
            raise ValueError(
                "the network has neither attention nor pointwise convolutions to adapt"
            )
        layers = fused or single
        ranks = (
            2 if fused else 1
        )  # one of rank r for q and one for v; peft scales by lora_alpha / r
        settings = LoraConfig(
            r=ranks * self.rank, lora_alpha=ranks * self.alpha, target_modules=layers
        )
        inject_adapter_in_model(settings, self.model)
        self.layers = {name: self.model.get_submodule(name) for name in layers}
        updates = [layer.lora_B[ADAPTER].weight for layer in self.layers.values()]
        if fused:
            for update in updates:
                _keep_blocks(update, self.rank)
        # Some networks use a layer's weight without calling its adapter, so no gradient reaches the update.
        logits = self.model(self.inputs[slice(1)])
        reached = (
            torch.autograd.grad(logits.sum(), updates, allow_unused=True)
            if logits.requires_grad
            else [None]
        )
        if any(gradient is None for gradient in reached):
            raise ValueError("its layers bypass peft's adapters, so LoRA can't train it")

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        trained = {id(part) for layer in self.layers.values() for part in _factors(layer)}
        outside = outside_blocks(self.model) if self.also == "tokens_and_norms" else []
        trained |= {
            id(part) for name, part in outside if any(word in name for word in TOKENS_AND_NORMS)
        }
        return [(name, p) for name, p in self.model.named_parameters() if id(p) in trained]

    def state_delta(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stored = {}
        for name, layer in self.layers.items():
            a, b = (factor.detach().cpu().flatten(1) for factor in _factors(layer))
            weight = self._published_name(f"{name}.weight", pretrained)
            stored[f"{weight}{LORA_A}"] = a.contiguous()
            stored[f"{weight}{LORA_B}"] = (layer.scaling[ADAPTER] * b).contiguous()
        state = {
            self._published_name(name, pretrained): value
            for name, value in self.model.state_dict().items()
        }
        return {**stored, **changed_tensors(pretrained, {name: state[name] for name in pretrained})}

    def _published_name(self, name: str, pretrained: Mapping[str, Tensor]) -> str:
        """Name of a tensor in the original network, before layers were replaced and adapted."""
        for layer in self.layers:
            name = name.replace(f"{layer}.base_layer.", f"{layer}.")
        return name if name in pretrained else name.replace(".qkv.", ".in_proj_")


class FusedAttention(nn.Module):
    """Self-attention with the parameters of an nn.MultiheadAttention and an nn.Linear for fused q, k and v.

    peft can adapt nn.MultiheadAttention directly, but adds to its weights and subtracts again in every pass, so frozen
    weights change by rounding errors.
    """

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.heads, self.batch_first = attention.num_heads, attention.batch_first
        self.qkv = nn.Linear(
            attention.embed_dim, 3 * attention.embed_dim, bias=attention.in_proj_bias is not None
        )
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend over tokens (N, L, d), or (L, N, d) unless `batch_first`; key and value equal the query."""
        tokens = query if self.batch_first else query.transpose(0, 1)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(tokens).chunk(3, dim=2)
        )
        mixed = (
            nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
            .transpose(1, 2)
            .flatten(2)
        )
        mixed = self.out_proj(mixed)
        return (mixed if self.batch_first else mixed.transpose(0, 1)), None


def unfold_attention(model: nn.Module) -> None:
    """Make all self-attention call its projections: replace nn.MultiheadAttention by an equivalent FusedAttention."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.MultiheadAttention):
            model.set_submodule(name, FusedAttention(layer))
        elif hasattr(
            layer, "qkv_bias_separate"
        ):  # timm's EVA, BEiT and Swin V2 use qkv's weight without calling it
            layer.qkv_bias_separate = True


def adapted_layers(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of layers with fused q, k and v, and of those with one update each: separate q and v, or else pointwise ones.

    The head, attention pooling, the projection of open_clip's image towers, and squeeze-and-excitation are left out.
    Raises a ValueError if an attention layer doesn't store q, k and v one after the other.
    """
    head = {name.rpartition(".")[0] for name, _ in head_parameters(model)}
    named = [
        (name, layer)
        for name, layer in model.named_modules()
        if name not in head
        and "pool" not in name
        and not name.startswith("visual.head.")
        and ".se." not in name
    ]
    fused = [
        name for name, layer in named if name.endswith(".qkv") and isinstance(layer, nn.Linear)
    ]
    for name in fused:
        layer, attention = model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])
        if layer.out_features != 3 * layer.in_features or getattr(attention, "head_first", False):
            raise ValueError(
                f"'{name}' doesn't store q, k and v one after the other, so LoRA can't separate them"
            )
    separate = [
        name
        for name, layer in named
        if name.endswith((".q_proj", ".v_proj")) and isinstance(layer, nn.Linear)
    ]
    pointwise = [
        name
        for name, layer in named
        if (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1)
        or (isinstance(layer, nn.Linear) and name.endswith((".mlp.fc1", ".mlp.fc2")))
    ]
    return fused, separate or pointwise


def _factors(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _keep_blocks(b: nn.Parameter, rank: int) -> None:
    """Train only the rows of q in the first `rank` columns of B (3 d, 2 r), and the rows of v in the others."""
    width = len(b) // 3
    mask = torch.zeros_like(b)
    mask[:width, :rank] = 1
    mask[2 * width :, rank:] = 1
    b.register_hook(lambda gradient: gradient * mask)
