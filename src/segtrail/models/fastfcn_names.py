"""The tensor names of FastFCN's published checkpoints (https://github.com/wuhuikai/FastFCN, MIT)."""

from __future__ import annotations

from segtrail.models.checkpoint import Renames


def _joint(published: str, ours: str, dilations: int) -> Renames:
    """The separable branches of one upsampling step, numbered from one in the published names."""
    parts = ((r"0\.conv1", 0), (r"0\.bn", 1), (r"0\.pointwise", 2), ("1", 3))
    return tuple(
        (rf"{published}\.dilation{branch + 1}\.{theirs}\.", f"{ours}.branches.{branch}.{part}.")
        for branch in range(dilations)
        for theirs, part in parts
    )


COMMON: Renames = (
    (r"pretrained\.fc\.", None),
    (r"pretrained\.", "encoder.model."),
    (r"jpu\.conv([345])\.", lambda m: f"upsampling.reduce.{int(m[1]) - 3}."),
    *_joint(r"jpu", "upsampling", 4),
    (r"jpu\.jum_1\.conv_l\.", "upsampling.first.coarse."),
    (r"jpu\.jum_1\.conv_h\.", "upsampling.first.fine."),
    *_joint(r"jpu\.jum_1", "upsampling.first", 3),
    (r"jpu\.jum_2\.conv_l\.", "upsampling.second.coarse."),
    (r"jpu\.jum_2\.conv_h\.", "upsampling.second.fine."),
    *_joint(r"jpu\.jum_2", "upsampling.second", 3),
    (r"auxlayer\.conv5\.([01])\.", r"auxiliary_head.layers.0.\1."),
    (r"auxlayer\.conv5\.4\.", "auxiliary_head.layers.2."),
)

PUBLISHED_NAMES: dict[str, Renames] = {
    "fcn": (
        *COMMON,
        (r"head\.conv5\.([01])\.", r"head.layers.0.\1."),
        (r"head\.conv5\.4\.", "head.layers.2."),
    ),
    "psp": (
        *COMMON,
        (r"head\.conv5\.0\.conv([1-4])\.", lambda m: f"head.pools.{int(m[1]) - 1}.1."),
        (r"head\.conv5\.([12])\.", lambda m: f"head.layers.0.{int(m[1]) - 1}."),
        (r"head\.conv5\.5\.", "head.layers.2."),
    ),
    "aspp": (
        *COMMON,
        (r"head\.aspp\.b4\.gap\.", "head.pyramid.4."),
        (r"head\.aspp\.b([0-3])\.", r"head.pyramid.\1."),
        (r"head\.aspp\.project\.", "head.layers.0."),
        (r"head\.block\.([01])\.", r"head.layers.2.\1."),
        (r"head\.block\.4\.", "head.layers.4."),
    ),
    "encnet": (
        *COMMON,
        (r"head\.conv5\.", "head.reduce."),
        (r"head\.connect\.", "head.lateral."),
        (r"head\.fusion\.", "head.fuse."),
        (r"head\.encmodule\.encoding\.3\.", "head.context.encoding."),
        (r"head\.encmodule\.encoding\.4\.", "head.context.norm.0."),
        (r"head\.encmodule\.encoding\.", "head.context.project."),
        (r"head\.encmodule\.fc\.", "head.context.gate."),
        (r"head\.encmodule\.selayer\.", "head.context.presence."),
        (r"head\.conv6\.", "head.classify."),
    ),
}
