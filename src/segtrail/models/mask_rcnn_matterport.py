"""Values of a Mask R-CNN under the names of Matterport's ``Config``, which many people know.

Facts: https://github.com/matterport/Mask_RCNN/blob/master/mrcnn/config.py. The table is in docs/mask_rcnn.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "DETECTION_MIN_CONFIDENCE": "box_score_thresh",
    "DETECTION_NMS_THRESHOLD": "box_nms_thresh",
    "DETECTION_MAX_INSTANCES": "box_detections_per_img",
    "RPN_ANCHOR_SCALES": "anchor_sizes",
    "RPN_NMS_THRESHOLD": "rpn_nms_thresh",
    "RPN_TRAIN_ANCHORS_PER_IMAGE": "rpn_batch_size_per_image",
    "PRE_NMS_LIMIT": "rpn_pre_nms_top_n_test",
    "POST_NMS_ROIS_TRAINING": "rpn_post_nms_top_n_train",
    "POST_NMS_ROIS_INFERENCE": "rpn_post_nms_top_n_test",
    "TRAIN_ROIS_PER_IMAGE": "box_batch_size_per_image",
    "ROI_POSITIVE_RATIO": "box_positive_fraction",
    "IMAGE_MAX_DIM": "max_size",
    "TOP_DOWN_PYRAMID_SIZE": "backbone.out_channels",
    "FPN_CLASSIF_FC_LAYERS_SIZE": "box_features",
    "BACKBONE": "backbone.name",
}
"""Matterport's name -> key of ``conf/model/mask_rcnn.yaml`` with the same meaning and value."""

LOSSES = {
    "rpn_class_loss": "objectness",
    "rpn_bbox_loss": "rpn_box",
    "mrcnn_class_loss": "classifier",
    "mrcnn_bbox_loss": "box",
    "mrcnn_mask_loss": "mask",
}


def matterport_parameters(model: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Translates a model's config.

    Args:
        model: the node ``model`` of a config, as plain values.
        class_names: the model's classes; Matterport counts the background among them.

    Returns:
        Values by Matterport's names. Anchor ratios are inverted, since Matterport means width / height;
        deviations are those that the box targets are divided by.
    """
    found = {theirs: value for theirs, ours in NAMES.items() if (value := _get(model, ours)) is not None}
    if "anchor_ratios" in model:
        found["RPN_ANCHOR_RATIOS"] = [round(1 / ratio, 6) for ratio in model["anchor_ratios"]]
    if "min_size" in model:  # several sizes are for training, the last is what inference takes
        sizes = model["min_size"]
        found["IMAGE_MIN_DIM"] = sizes if isinstance(sizes, int) else sizes[-1]
    if "bbox_reg_weights" in model:
        found["BBOX_STD_DEV"] = [round(1 / weight, 6) for weight in model["bbox_reg_weights"]]
    for theirs, ours in LOSSES.items():
        found[f"LOSS_WEIGHTS/{theirs}"] = float((model.get("loss_weights") or {}).get(ours, 1.0))
    background = class_names[:1] and class_names[0] in ("background", "__background__")
    found["NUM_CLASSES"] = len(class_names) + (0 if background else 1)
    return found


def _get(model: Mapping[str, Any], key: str) -> Any:
    node: Any = model
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node
