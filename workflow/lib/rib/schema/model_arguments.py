"""Arguments with which a network may be built: only arguments that change its architecture.

create_model of timm and open_clip also takes arguments that load weights from a file, a folder or
an address. Such weights would pass for the pinned ones, so only the arguments listed here are
passed on, whether a catalogue, a lock file, a folder or the hub states them. No torch.
"""

import re
from collections.abc import Mapping

from rib.base.errors import UserError
from rib.schema.fields import is_number, is_whole
from rib.schema.messages import nearest, show

MOST_CLASSES = 100_000  # outputs of a head; ImageNet-21K has 21,843
LONGEST_LIST = 200
DEEPEST_LIST = 4
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{0,64}")  # neither path, file with an ending nor URL
REPOSITORY = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")

NUM_CLASSES = "num_classes"
# Repository of a tokenizer. It is resolved once; later runs use its pinned files.
TOKENIZER_NAME = "hf_tokenizer_name"
# It is allowed, but only as false, because open_clip's configurations and this project's records
# state it.
LOADS_WEIGHTS_UNLESS_FALSE = "timm_model_pretrained"
# Options of open_clip's own tokenizers. Others reach transformers, which may run code.
TOKENIZER_OPTIONS = frozenset({"clean", "strip_sep_token", "language"})


def _names(text: str) -> frozenset[str]:
    """{"clean", "language"} for "clean language"."""
    return frozenset(text.split())


# Parameters of timm's networks that take numbers, booleans and names. Left out: parameters that
# load weights, give something other than a classifier, or take objects.
TIMM = _names("""
    aa_layer aa_stem_only abs_win_pos_embed act_layer always_partition attn attn_act_layer
    attn_drop_rate attn_gated attn_groups attn_head_dim_reduction attn_layer attn_mlp attn_mlp_ratio
    attn_only_layer_scale attn_pool_mlp_ratio attn_pool_num_heads attn_ratio attn_stage attn_type
    attn_types attn_upsample aux_logits avg_down base_dim base_dims base_width basic bidirectional
    block_fn block_reduce_first block_type bn_eps bn_momentum bn_size bottle_ratio
    bottleneck_width_ratio cardinality ch_div channel_attention channel_attn_v2 channel_multiplier
    channels class_token cls_attn_layers cls_ratio conv_bias conv_init conv_mlp conv_ratio cpe_act
    crop_scale crpe_window d2_scales deepen_factor depth depth_list depth_mult depth_token_only
    depths dim dim_mul dims distillation distilled down_kernel_size down_op down_ops down_pad
    down_patch_size down_stride downsample downsample_block downsample_expand_ratios
    downsample_kernel_size downsample_padding downsample_ratio downsamples drop_block_rate
    drop_block_size drop_path_rate drop_rate dw_act_layer dynamic_img_pad dynamic_img_size embed_dim
    embed_dims embed_norm embed_norm_layer embed_proj_type enable_patch_interpolator encoder_pool
    eta expand_groups expand_ratio expansion_ratio extra_norm_period extra_norm_stage fc_act_layer
    fc_norm feature_dim feature_location ffn ffn_ratio final_chs final_norm first_stride fix_init
    fix_stem focal_levels focal_windows fused_conv fused_downsample global_att_blocks
    global_attn_indexes global_block_counts global_pool global_pos_size group groups growth_rate
    growth_rates head_bias head_dim head_fn head_hidden_size head_init_scale head_mul head_norm
    head_norm_first head_widths heads hidden_sizes img_scale img_size in_chans inc_sec init_channels
    init_values initial_chs inner_dim inplanes input_3x3 input_norm_layer intermediate_size
    is_downsample_block k_r k_sec kernel_size kernel_sizes kernels key_dim layer_scale
    layer_scale_init_value layer_scale_init_values layers layerscale_value legacy levels linear
    lkc_use_act local_conv_size local_mbconv_norm local_up_to_layer locality_strength ls_init_value
    mask_unit_attn mask_unit_size mbconv_expand_ratio merge_size mix_block_ratio mlp_bias mlp_layer
    mlp_ratio mlp_ratio_token_only mlp_ratios msfa_indices msfa_output_resolution multi_conv n_div
    named_blocks neck_chans nlhb no_embed_class norm_eps norm_layer norm_layer_cl
    normalize_modulator num_blocks num_blocks_list num_classes num_features num_heads
    num_heads_inner num_heads_outer num_init_features num_kv_heads num_levels num_reg_tokens
    num_rnn_layers num_vit out_features outlook_attention output_stride pad_type parallel_depth
    partial_dim patch_drop_rate patch_kernel patch_norm patch_padding patch_size patch_sizes
    patch_stride patchify_channels_last pconv_fw_type pool_include_prefix pool_size
    pooling_kernel_size pooling_scale pos_drop_rate pos_embed pos_embed_align_corners
    pos_embed_antialias pos_embed_ar_preserving pos_embed_grid_size pos_embed_interp_mode
    pos_embed_use_grid_sample pos_embs position_embedding_size post_layers pre_norm preact
    pretrained_window_size pretrained_window_sizes proj_bias proj_drop_rate q_pool q_stride qk_dim
    qk_norm qkv_bias qkv_fused reduction ref_feat_shape reg_tokens rel_pos_dim rel_pos_type reparam
    replace_stem_pool repmixer_kernel_size res_scale_init_values rope_grid_indexing rope_grid_offset
    rope_jitter_coords rope_mixed_mode rope_mrope_section rope_ref_feat_shape rope_rescale_coords
    rope_rotate_half rope_shift_coords rope_temperature rope_theta rope_type scale scale_attn_inner
    scale_attn_inner_norm scale_attn_norm scale_mlp scale_mlp_norm se_downsamples se_from_exp
    se_layer se_ratio sep_pos_embed sequential_attn serial_depths shared_rel_pos shortcut_root small
    small_kernels spatial_conv sr_ratios ssd_expand stages standardize state_dim stem_bias stem_chs
    stem_expand_ratio stem_hidden_dim stem_kernel_size stem_mid_norm stem_norm stem_size stem_stride
    stem_type stem_use_scale_branch stem_width strict_img_size stride strides swiglu_align_to
    swiglu_mlp token_mixers tokens_norm transformer_depths transformer_drop_path
    transition_compression_ratio types union use_abs_pos use_abs_pos_emb use_aux_head
    use_clipped_linears use_conv use_expand_proj use_fc_norm use_grn use_key_only_attn_mask use_lab
    use_layer_scale use_mix_token use_mlp_head use_msfa use_naflex use_overlap_down use_pos_emb
    use_pos_embed use_post_norm use_post_norm_in_modulation use_post_transformer_norm
    use_pre_transformer_norm use_rel_pos use_rel_pos_bias use_rope use_rot_pos_emb
    use_shared_rel_pos_bias v2 version weight_init widen_factor width width_factor width_list
    width_mult widths window_ratio window_size window_sizes window_spec with_fc wss zero_init_last
""")

OPEN_CLIP = _names("""
    model_cfg force_image_size force_context_length force_custom_text force_patch_dropout
    force_quick_gelu init_logit_bias init_logit_scale nonscalar_logit_scale
""")

TRANSFORMER = _names("""
    act_kwargs block_type final_ln_after_pool heads layers ls_init_value mlp_ratio norm_kwargs
    output_tokens pool_type qk_norm scale_attn scale_attn_inner scale_fc scale_heads
    scaled_cosine_attn width
""")
TEXT = TRANSFORMER | _names("""
    context_length embed_cls eos_id hf_pooler_type hf_proj_type hf_tokenizer_name no_causal_mask
    pad_id proj_bias proj_type tokenizer_kwargs tokenizer_mode vocab_size
""")

# Keys of the mappings within open_clip's arguments. hf_model_name is missing because open_clip
# downloads the tower that it names.
SECTIONS = {
    "model_cfg": _names("""
        custom_text embed_dim init_logit_bias init_logit_scale multimodal_cfg nonscalar_logit_scale
        quick_gelu text_cfg vision_cfg
    """),
    "vision_cfg": TRANSFORMER
    | _names("""
        attentional_pool attn_pooler_heads attn_pooler_queries head_width image_size no_ln_pre
        patch_dropout patch_size pos_embed_type timm_drop timm_drop_path timm_model_name
        timm_model_pretrained timm_pool timm_proj timm_proj_bias
    """),
    "text_cfg": TEXT,
    "multimodal_cfg": TEXT | _names("attn_pooler_heads dim_head n_queries"),
    "act_kwargs": _names("approximate inplace"),
    "norm_kwargs": _names("bias elementwise_affine eps"),
    "tokenizer_kwargs": TOKENIZER_OPTIONS,
}


def check_arguments(library: str, arguments: object, where: str) -> None:
    """Check the arguments with which timm or open_clip will build a network.

    Args:
        arguments: keyword arguments of the library's create_model.
        where: file and model, for messages.

    Raises:
        UserError: An argument may do more than change the architecture, or its value is not made of
            numbers, booleans and short names.
    """
    allowed = TIMM if library == "timm" else OPEN_CLIP
    _check_section(arguments, allowed, "arguments", where)


def _check_section(section: object, allowed: frozenset[str], name: str, where: str) -> None:
    """Raise a UserError for an argument that isn't allowed.

    In the section {"vision_cfg": {...}, "embed_dim": 512}, `vision_cfg` is a section, too.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where}: '{name}' is {show(section)}; give keys and values.")
    for key, argument in section.items():
        if key not in allowed:
            raise UserError(
                f"{where}: the argument {show(key)} in '{name}'{nearest(key, allowed)} is none "
                "that only changes an architecture, and others may load weights from elsewhere; "
                "remove it."
            )
        if key in SECTIONS:
            _check_section(argument, SECTIONS[key], key, where)
            continue
        expectation = _unmet_expectation(key, argument)
        if expectation is not None:
            raise UserError(
                f"{where}: the argument '{key}' is {show(argument)}; give {expectation}."
            )


def _unmet_expectation(key: str, argument: object) -> str | None:
    """What a user should give instead; None if the argument may be passed on."""
    if key == LOADS_WEIGHTS_UNLESS_FALSE and argument not in (False, None):
        return "false, since only the pinned weights are loaded"
    if key == NUM_CLASSES and not (is_whole(argument) and 0 <= argument <= MOST_CLASSES):
        return f"a whole number from 0 to {MOST_CLASSES}"
    if key == TOKENIZER_NAME:
        is_repository = isinstance(argument, str) and REPOSITORY.fullmatch(argument)
        if is_repository or argument is None:
            return None
        return "a repository of the hub, owner/name"
    if not _is_plain(argument):
        return "a number, true, false, a short name without points and slashes, or a list of these"
    return None


def _is_plain(argument: object, depth: int = 0) -> bool:
    """Whether an argument is a number, boolean, short name, None or a list of these.

    `depth` is the number of lists around it.
    """
    if isinstance(argument, list | tuple):
        if depth >= DEEPEST_LIST or len(argument) > LONGEST_LIST:
            return False
        return all(_is_plain(element, depth + 1) for element in argument)
    if isinstance(argument, str):
        return PLAIN_NAME.fullmatch(argument) is not None
    return argument is None or isinstance(argument, bool) or is_number(argument)
