"""LoRA: frozen weights plus trained low-rank updates, with peft.

The query and value projections of self-attention are adapted. Attention pooling, as in SigLIP and
PE, isn't self-attention: its query is one learned vector or the mean. timm and open_clip mostly
fuse q, k and v into one weight with 3 d rows. Its update has rank 2 r: the first r columns of B are
zero except in the rows of q, the other r except in the rows of v. This equals one update of rank r
for q and one for v, each with its own A. Networks without self-attention have their pointwise
convolutions adapted, which are nn.Linear in ConvNeXt. The head is frozen.

Source: Hu et al. 2021 (arXiv 2106.09685), equation 3 and section 4.2 (q and v). The released code
of ImageNet-RIB (utils/lora.py, main.py:76-82) also trains the class token, the position embedding
and the norms outside the blocks, as does the method lora_released.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rib.methods import Count, Positive
from rib.methods._outside_blocks import outside_blocks
from rib.methods.base import FineTuning, Task
from rib.models.checkpoint import LORA_A, LORA_B, differing_tensors
from rib.models.network import Classifier, head_parameters

ADAPTER = "default"  # peft's name of an adapter
# Parts of the names of norms, class tokens and position embeddings.
TOKENS_AND_NORMS = (
    "norm",
    "ln_",
    "cls_token",
    "pos_embed",
    "class_embedding",
    "positional_embedding",
)


@dataclass(kw_only=True)
class LowRankAdaptation(FineTuning):
    """Minimise CE over A and B of W + alpha / r * B A."""

    rank: Count  # r
    alpha: Positive  # scale of the update times r
    also: Literal["none", "tokens_and_norms"]  # trained outside the blocks, as in the released code

    def setup(self, task: Task) -> None:
        """Prepare for training: replace layers by adapters with factors A and B.

        Raises:
            ValueError: the network has no layers to adapt, or it bypasses the adapters.
        """
        super().setup(task)
        unfold_attention(self.model)
        fused_layers, single_layers = adapted_layers(self.model)
        if not fused_layers and not single_layers:
            raise ValueError(
                "the network has neither attention nor pointwise convolutions to adapt"
            )
        if fused_layers:
            self.layers = self._with_adapters(fused_layers, 2)  # an update of q, an update of v
            for layer in self.layers.values():
                _, b = _factors(layer)
                _train_only_q_and_v(b, self.rank)
        else:
            self.layers = self._with_adapters(single_layers, 1)
        self._refuse_bypassed_layers()

    def _with_adapters(self, names: list[str], updates_per_layer: int) -> dict[str, LoraLayer]:
        """Replace layers of the network by adapters, {"blocks.0.attn.qkv": adapter, ...}."""
        # peft scales an update by lora_alpha / r, which is alpha / rank for any number of updates.
        scaled_alpha = updates_per_layer * self.alpha
        settings = LoraConfig(
            r=updates_per_layer * self.rank,
            lora_alpha=scaled_alpha,  # type: ignore[arg-type]  # peft's type is int, but it divides
            target_modules=names,
        )
        inject_adapter_in_model(settings, self.model)
        return {name: cast(LoraLayer, self.model.get_submodule(name)) for name in names}

    def _refuse_bypassed_layers(self) -> None:
        """Raise a ValueError if the network uses a layer's weight without calling its adapter."""
        # One image shows it: a factor B without an adapter's call gets no gradient.
        b_factors = []
        for layer in self.layers.values():
            _, b = _factors(layer)
            b_factors.append(b)
        logits = self.model(self.images[slice(1)])
        is_reached = logits.requires_grad
        if is_reached:
            gradients = torch.autograd.grad(logits.sum(), b_factors, allow_unused=True)
            is_reached = all(gradient is not None for gradient in gradients)
        if not is_reached:
            raise ValueError("its layers bypass peft's adapters, so LoRA can't train it")

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Factors A and B by name; with `also: tokens_and_norms` also tokens and norms."""
        trained_ids: set[int] = set()
        for layer in self.layers.values():
            trained_ids.update(id(factor) for factor in _factors(layer))
        if self.also == "tokens_and_norms":
            for name, parameter in outside_blocks(self.model):
                if any(word in name for word in TOKENS_AND_NORMS):
                    trained_ids.add(id(parameter))
        return [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if id(parameter) in trained_ids
        ]

    def changed_tensors(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factors such as `blocks.0.attn.qkv.weight.lora_A`, and other tensors that changed."""
        factors = {}
        for name, layer in self.layers.items():
            a, b = _factors(layer)
            published_name = self._published_name(f"{name}.weight", pretrained)
            stored_a = a.detach().cpu().flatten(1)
            # With the scale alpha / r, so B A is the whole update.
            stored_b = layer.scaling[ADAPTER] * b.detach().cpu().flatten(1)
            factors[f"{published_name}{LORA_A}"] = stored_a.contiguous()
            factors[f"{published_name}{LORA_B}"] = stored_b.contiguous()
        tensors = {
            self._published_name(name, pretrained): tensor
            for name, tensor in self.model.state_dict().items()
        }
        # Drops the factors, which the pretrained network lacks.
        tensors_of_network = {name: tensors[name] for name in pretrained}
        return {**factors, **differing_tensors(pretrained, tensors_of_network)}

    def _published_name(self, name: str, pretrained: Mapping[str, Tensor]) -> str:
        """`blocks.0.attn.qkv.base_layer.weight` becomes `blocks.0.attn.qkv.weight`."""
        # peft moved each adapted layer into an attribute `base_layer` of its adapter. A checkpoint
        # must load into the original network.
        for layer in self.layers:
            name = name.replace(f"{layer}.base_layer.", f"{layer}.")
        if name in pretrained:
            return name
        # FusedAttention's layer `qkv` replaced the parameters `in_proj_weight` and `in_proj_bias`
        # of an nn.MultiheadAttention.
        return name.replace(".qkv.", ".in_proj_")


class FusedAttention(nn.Module):
    """Self-attention with an nn.MultiheadAttention's parameters, but one nn.Linear for q, k, v.

    peft can adapt nn.MultiheadAttention directly, but it adds the update to the weights and
    subtracts it again in every pass, so frozen weights change by rounding errors.
    """

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.heads = attention.num_heads
        self.batch_first = attention.batch_first
        has_bias = attention.in_proj_bias is not None
        self.qkv = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, bias=has_bias)
        # Replaces the random parameters.
        self.qkv.weight = attention.in_proj_weight
        self.qkv.bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend over tokens (N, L, d), or (L, N, d) unless `batch_first`.

        It has the signature of nn.MultiheadAttention, but key and value must equal the query, and
        no attention weights are returned.
        """
        tokens = query if self.batch_first else query.transpose(0, 1)
        q, k, v = self.qkv(tokens).chunk(3, dim=2)
        attended = nn.functional.scaled_dot_product_attention(
            self._by_head(q), self._by_head(k), self._by_head(v), attn_mask=attn_mask
        )
        outputs = self.out_proj(attended.transpose(1, 2).flatten(2))
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        return outputs, None

    def _by_head(self, projected: Tensor) -> Tensor:
        """From (N, L, d) to (N, heads, L, d / heads)."""
        return projected.unflatten(2, (self.heads, -1)).transpose(1, 2)


def unfold_attention(model: nn.Module) -> None:
    """Make self-attention call its projections as layers, which peft can adapt, in place.

    Each nn.MultiheadAttention is replaced by an equivalent FusedAttention.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.MultiheadAttention):
            model.set_submodule(name, FusedAttention(layer))
        elif hasattr(layer, "qkv_bias_separate"):
            # Without it timm's EVA, BEiT and Swin V2 use qkv's weight without calling the layer.
            layer.qkv_bias_separate = True


def adapted_layers(model: Classifier) -> tuple[list[str], list[str]]:
    """Names of the layers that LoRA can adapt, such as `blocks.0.attn.qkv`.

    The head, attention pooling, the projection of open_clip's image towers, and
    squeeze-and-excitation are left out.

    Returns:
        Layers with fused q, k and v, which need two updates each; and layers with one update each:
        separate q and v, or pointwise convolutions if there are none.

    Raises:
        ValueError: an attention layer doesn't store q, k and v one after the other.
    """
    head_layers = {name.rpartition(".")[0] for name, _ in head_parameters(model)}
    fused = []
    separate = []
    pointwise = []
    for name, layer in model.named_modules():
        if name in head_layers or _is_left_out(name):
            continue
        is_linear = isinstance(layer, nn.Linear)
        if is_linear and name.endswith(".qkv"):
            _refuse_interleaved(model, name)
            fused.append(name)
        if is_linear and name.endswith((".q_proj", ".v_proj")):
            separate.append(name)
        if _is_pointwise_convolution(name, layer):
            pointwise.append(name)
    if separate:
        return fused, separate
    return fused, pointwise


def _is_left_out(name: str) -> bool:
    """True for attention pooling, a tower's projection, or squeeze-and-excitation."""
    return "pool" in name or name.startswith("visual.head.") or ".se." in name


def _refuse_interleaved(model: nn.Module, name: str) -> None:
    """Raise a ValueError unless the rows are all of q, then k, then v, as LoRA's mask needs."""
    layer = cast(nn.Linear, model.get_submodule(name))
    name_of_attention, _, _ = name.rpartition(".")
    attention = model.get_submodule(name_of_attention)
    has_three_projections = layer.out_features == 3 * layer.in_features
    if not has_three_projections or getattr(attention, "head_first", False):
        raise ValueError(
            f"'{name}' doesn't store q, k and v one after the other, so LoRA can't separate them"
        )


def _is_pointwise_convolution(name: str, layer: nn.Module) -> bool:
    """Whether LoRA can adapt it as a linear layer at each position."""
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    # ConvNeXt writes pointwise convolutions as nn.Linear.
    return isinstance(layer, nn.Linear) and name.endswith((".mlp.fc1", ".mlp.fc2"))


def _factors(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """An adapter's A (r, in) and B (out, r), with two more dimensions of size 1 in convolutions."""
    a = layer.lora_A[ADAPTER].get_parameter("weight")
    b = layer.lora_B[ADAPTER].get_parameter("weight")
    return a, b


def _train_only_q_and_v(b: nn.Parameter, rank: int) -> None:
    """Set B's gradient to 0 except where it updates q or v, in each backward pass from now on."""
    # B (3 d, 2 r) has d rows each for q, k and v. The first r columns are the update of q, the
    # others the update of v. The rest of B starts at zero and gets no gradient.
    width = len(b) // 3
    mask = torch.zeros_like(b)
    mask[:width, :rank] = 1
    mask[2 * width :, rank:] = 1
    b.register_hook(lambda gradient: gradient * mask)
