"""The tensor names of Gated-SCNN's published checkpoint (https://github.com/nv-tlabs/GSCNN)."""

from __future__ import annotations

import re

from segtrail.models.checkpoint import Renames


def _trunk(match: re.Match[str]) -> str:
    module, block, layer, number = match.groups()
    prefix = f"encoder.mod{module}.{int(block) - 1}."
    if layer == "proj_conv":
        return f"{prefix}shortcut."
    if layer == "bn":
        return f"{prefix}norm1." if number == "1" else f"{prefix}layers.norm{number}."
    return f"{prefix}layers.conv{number}."


PUBLISHED_NAMES: Renames = (
    (r"dsn1\.", None),  # the published network never uses it
    (r"mod1\.conv1\.", "encoder.mod1."),
    (r"mod(\d)\.block(\d)\.(?:convs\.)?(proj_conv|conv|bn)(\d?)\.", _trunk),
    (r"dsn([347])\.", lambda m: f"shape.to_gate.{'347'.index(m[1])}."),
    (r"res([123])\.conv1\.", lambda m: f"shape.blocks.{int(m[1]) - 1}.layers.0."),
    (r"res([123])\.bn1\.", lambda m: f"shape.blocks.{int(m[1]) - 1}.layers.1."),
    (r"res([123])\.conv2\.", lambda m: f"shape.blocks.{int(m[1]) - 1}.layers.3."),
    (r"res([123])\.bn2\.", lambda m: f"shape.blocks.{int(m[1]) - 1}.layers.4."),
    (r"d([123])\.", lambda m: f"shape.reduce.{int(m[1]) - 1}."),
    (r"gate([123])\._gate_conv\.", lambda m: f"shape.gates.{int(m[1]) - 1}.attention."),
    (r"gate([123])\.", lambda m: f"shape.gates.{int(m[1]) - 1}.convolve."),
    (r"fuse\.", "shape.classify."),
    (r"cw\.", "blend."),
    (r"aspp\.features\.", "pyramid."),
    (r"aspp\.img_conv\.([01])\.", lambda m: f"pyramid.4.{int(m[1]) + 1}."),
    (r"aspp\.edge_conv\.", "edge_branch."),
    (r"bot_fine\.", "reduce_fine."),
    (r"bot_aspp\.", "reduce_coarse."),
    (r"final_seg\.([01])\.", r"decode.0.\1."),
    (r"final_seg\.([34])\.", lambda m: f"decode.1.{int(m[1]) - 3}."),
    (r"final_seg\.6\.", "decode.2."),
)
