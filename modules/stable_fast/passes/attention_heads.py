"""Any other scaled dot-product attention becomes lightdiffusion.attention_heads, whose implementation is chosen.

It runs after attention_packed and includes the merge of the heads. A mask of numbers goes through
lightdiffusion.attention_bias once for all layers. Not matched: masks of booleans, dropout, grouped heads, and results
whose heads are not merged.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments
from modules.stable_fast.passes.attention_packed import SDPA, merged_heads
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, broadcasts, dtype_of, same_stage, shape

HEADS = torch.ops.lightdiffusion.attention_heads.default
BIAS = torch.ops.lightdiffusion.attention_bias.default


def fuse_heads(editor: Editor, sdpa: fx.Node) -> bool:
    given, merged = arguments(sdpa), merged_heads(sdpa)
    if merged is None or given.enable_gqa or given.dropout_p or not same_stage(sdpa, merged):
        return False
    heads = (given.query, given.key, given.value)
    q, k, v = map(shape, heads)
    if q[:2] != k[:2] or k[:3] != v[:3] or len({dtype_of(each) for each in heads}) > 1 or q[3] != v[3]:
        return False
    bias = given.attn_mask
    if bias is not None:
        if given.is_causal or dtype_of(bias) != dtype_of(given.query) or not broadcasts(shape(bias), (*q[:3], k[2])):
            return False
        bias = editor.call(sdpa, BIAS, bias)
    new = editor.call(merged, HEADS, *heads, bias, given.is_causal, given.scale)
    editor.replace(merged, new)
    return True


PASS = FusionPass("attention_heads", (Rule("attention_heads", (SDPA,), fuse_heads),))
