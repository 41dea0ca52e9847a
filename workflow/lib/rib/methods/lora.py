"""LoRA: frozen weights plus trained low-rank updates, through peft.

ViTs: the query and value parts of attention. timm and open_clip fuse q, k and v into one weight of 3 d rows, so the
update of the fused weight has rank 2 r, with B zero in k's rows, in q's rows for the second r columns and in v's for
the first: that is one update of rank r for q and one for v, each with an A of its own. CNNs: pointwise convolutions.
The head is frozen.

Source: Hu et al. 2021 (arXiv 2106.09685), equation 3 and section 4.2 (q and v). The released code of ImageNet-RIB
(utils/lora.py, main.py:76-82) freezes the head but trains class token, position embedding and norms besides: that is
lora_released.
"""

from collections.abc import Iterable, Mapping

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rib.methods import mechanism
from rib.methods._base import FineTuning, Task
from rib.models.checkpoint import LORA_A, LORA_B, changed_tensors

ADAPTER = "default"


@mechanism
class LowRankAdaptation(FineTuning):
    """Minimise CE over A and B of W + alpha / r * B A.

    Args:
        rank: r, from 1.
        alpha: scale of the update times r, above 0.
        also: `none`, or `tokens_and_norms`, which train too in the released code.
    """

    def __init__(self, *, rank: int, alpha: float, also: str, **common):
        super().__init__(**common)
        if rank < 1 or alpha <= 0:
            raise ValueError(f"rank is {rank} and alpha {alpha}; give them from 1 and above 0")
        if also not in ("none", "tokens_and_norms"):
            raise ValueError(f"also is '{also}'; give 'none' or 'tokens_and_norms'")
        self.rank = rank
        self.alpha = alpha
        self.also = also

    def begin(self, task: Task) -> None:
        super().begin(task)
        unfold_attention(self.model)
        fused, pointwise = adapted_layers(self.model)
        if not fused and not pointwise:
            raise ValueError("the network has neither attention nor pointwise convolutions to adapt")
        ranks = 2 if fused else 1  # one of rank r for q and one for v
        settings = LoraConfig(
            r=ranks * self.rank,
            lora_alpha=ranks * self.alpha,  # peft scales by lora_alpha / r
            target_modules=fused or pointwise,
            lora_dropout=0.0,
        )
        inject_adapter_in_model(settings, self.model)
        self.layers = {
            name: layer
            for name, layer in self.model.named_modules()
            if isinstance(layer, LoraLayer) and name in (fused or pointwise)
        }
        if fused:
            for layer in self.layers.values():
                _keep_blocks(layer.lora_B[ADAPTER].weight, self.rank)

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        mine = {id(part) for layer in self.layers.values() for part in _factors(layer)}
        extra = _tokens_and_norms(self.model) if self.also == "tokens_and_norms" else set()
        return [(name, p) for name, p in self.model.named_parameters() if id(p) in mine or id(p) in extra]

    def changes(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stored = {}
        for name, layer in self.layers.items():
            a, b = (factor.detach().cpu().flatten(1) for factor in _factors(layer))
            weight = _published_name(f"{name}.weight", pretrained)
            stored[f"{weight}{LORA_A}"] = a.contiguous()
            stored[f"{weight}{LORA_B}"] = (layer.scaling[ADAPTER] * b).contiguous()
        state = {_published_name(name, pretrained): value for name, value in self.model.state_dict().items()}
        return {**stored, **changed_tensors(pretrained, {name: state[name] for name in pretrained})}


class FusedAttention(nn.Module):
    """An nn.MultiheadAttention as self-attention whose fused q, k and v are an nn.Linear, which peft can adapt.

    peft adapts nn.MultiheadAttention too, but by adding to its weights and subtracting again at every pass, which
    moves frozen weights by rounding.

    Args:
        attention: whose parameters it takes over.
    """

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.heads = attention.num_heads
        self.batch_first = attention.batch_first
        self.qkv = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, bias=attention.in_proj_bias is not None)
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Tokens (N, L, d), or (L, N, d) unless `batch_first`; key and value are the query."""
        tokens = query if self.batch_first else query.transpose(0, 1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=2))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).flatten(2)
        mixed = self.out_proj(mixed)
        return (mixed if self.batch_first else mixed.transpose(0, 1)), None


def unfold_attention(model: nn.Module) -> None:
    """Replace every nn.MultiheadAttention by the same function with a layer that can be adapted."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.MultiheadAttention):
            model.set_submodule(name, FusedAttention(layer))


def _published_name(name: str, pretrained: Mapping[str, Tensor]) -> str:
    """Name of a tensor in the network as it was before layers were replaced and adapted."""
    name = name.replace("base_layer.", "")
    return name if name in pretrained else name.replace(".qkv.", ".in_proj_")


def adapted_layers(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the layers with fused q, k and v, and of the pointwise convolutions outside squeeze-and-excitation."""
    fused = [name for name, layer in model.named_modules() if name.endswith(".qkv") and isinstance(layer, nn.Linear)]
    pointwise = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and ".se." not in name
    ]
    return fused, pointwise


def _factors(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _keep_blocks(b: nn.Parameter, rank: int) -> None:
    """Let only q's rows of the first `rank` columns and v's rows of the others of B (3 d, 2 r) leave zero."""
    width = len(b) // 3
    mask = torch.zeros_like(b)
    mask[:width, :rank] = 1
    mask[2 * width :, rank:] = 1
    b.register_hook(lambda gradient: gradient * mask)


def _tokens_and_norms(model: nn.Module) -> set[int]:
    norms = [part for layer in model.modules() if isinstance(layer, nn.LayerNorm) for part in layer.parameters()]
    tokens = [
        part
        for name, part in model.named_parameters()
        if name.rpartition(".")[2] in ("cls_token", "pos_embed", "class_embedding", "positional_embedding")
    ]
    return {id(part) for part in (*norms, *tokens)}
