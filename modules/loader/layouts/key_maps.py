"""Name tables: diffusers and LDM spellings, parts of EMA names, and marker names of other kinds of files."""

from __future__ import annotations

UNET_PREFIX = "model.diffusion_model."
EMA_PREFIX = "model_ema.diffusion_model"
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
OPENCLIP_PREFIX = "cond_stage_model.model."
SDXL_CLIP_L_PREFIX = "conditioner.embedders.0.transformer."
SDXL_CLIP_G_PREFIX = "conditioner.embedders.1.model."
REFINER_CLIP_G_PREFIX = "conditioner.embedders.0.model."

LONE_UNET_PREFIX = "diffusion_model."  # ComfyUI's prefix for a UNet saved alone

# Component folders of a diffusers model; some single files use their names as prefixes.
DIFFUSERS_PARTS = {"unet": "unet.", "vae": "vae.", "text": "text_encoder.", "text_2": "text_encoder_2."}

# diffusers name -> LDM name for the parts of the UNet outside its blocks.
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
# diffusers name -> LDM name inside a residual block of the UNet.
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
# Names of the ControlNet parts that the UNet's encoder half lacks; diffusers.py handles the numbered parts.
CONTROLNET_ENDS = {
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    "controlnet_mid_block": "middle_block_out.0",
}
# diffusers name -> LDM name inside the autoencoder; old diffusers files use different attention names.
VAE_PIECES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
# Hugging Face CLIP name -> OpenCLIP name, outside and inside a layer. Query, key and value are packed into in_proj.
OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
OPENCLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}

# Names of EMA copies are stored without dots; these are the parts of UNet names.
EMA_PIECES = (
    "input_blocks output_blocks middle_block time_embed transformer_blocks skip_connection in_layers emb_layers "
    "label_emb out_layers proj_in proj_out to_out to_q to_k to_v attn1 attn2 norm1 norm2 norm3 norm proj ff net op "
    "conv out weight bias"
).split()

# Prefixes of a text encoder's names in a checkpoint of any layout.
TEXT_PREFIXES = (
    *(CLIP_PREFIX, OPENCLIP_PREFIX, SDXL_CLIP_L_PREFIX, SDXL_CLIP_G_PREFIX, REFINER_CLIP_G_PREFIX),
    *(DIFFUSERS_PARTS["text"], DIFFUSERS_PARTS["text_2"]),
)
# First parts of the names in a UNet saved without a prefix.
UNET_ROOTS = (
    *("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out."),
    *("down_blocks.", "mid_block.", "up_blocks.", "time_embedding.", "add_embedding.", "conv_in.", "conv_norm_out."),
    "conv_out.",
)

# Names that may occur in a file although they do not belong to any network.
IGNORED_TEXT = ("position_ids", "logit_scale", "attn_mask", "visual.")
IGNORED_VAE = ("loss.", "model_ema.")
