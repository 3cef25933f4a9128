"""COCO's average precision and recall of masks or boxes, as pycocotools computes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist

AREAS = ("all", "small", "medium", "large")
DETECTIONS = (1, 10, 100)
_IOUS = np.linspace(0.5, 0.95, 10)


class MaskAP:
    """Average precision and recall over a data set (https://cocodataset.org/#detection-eval).

    Averages over IoU .50:.05:.95; objects smaller than 32x32 pixels are small, than 96x96 medium, the
    rest large; detections within a crowd region count neither way. Masks are kept run-length encoded,
    so that a whole validation split fits into memory.

    Args:
        class_names: in id order.
        kind: ``segm`` compares masks, ``bbox`` boxes.
    """

    def __init__(self, class_names: Sequence[str], kind: str = "segm") -> None:
        if kind not in ("segm", "bbox"):
            raise ValueError(f"kind={kind!r}: give 'segm' for masks or 'bbox' for boxes")
        self.class_names = tuple(class_names)
        self.kind = kind
        self._images: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def update(
        self,
        image_id: str,
        size: tuple[int, int],
        found: Iterable[Mapping[str, Any]],
        truth: Iterable[Mapping[str, Any]],
    ) -> None:
        """Adds one image; the same id again replaces it.

        Args:
            image_id: unique within the split.
            size: height and width.
            found: objects with ``category_id``, ``bbox`` (xywh), ``segmentation`` (run-length encoded)
                and ``score``, the best first.
            truth: likewise, with ``iscrowd`` and ``area`` (pixels of the mask) instead of ``score``.
        """
        self._images[image_id] = ([dict(item) for item in found], [dict(item) for item in truth])
        self._sizes[image_id] = size

    def reset(self) -> None:
        """Forgets all images."""
        self._images.clear()
        self._sizes.clear()

    def gather(self) -> None:
        """Collects the images of all processes in each of them; those seen twice count once."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (self._images, self._sizes))
        for images, sizes in parts:
            self._images.update(images)
            self._sizes.update(sizes)

    def compute(self) -> dict[str, float]:
        """Evaluates all images so far.

        Returns:
            ``mAP``, ``AP50``, ``AP75``, ``mAP_small`` and so on, ``AR_1``, ``AR_10``, ``AR_100``,
            ``AR_small`` and so on, ``AP/<class>``; without the figures for which there is no object.
        """
        if not any(truth for _, truth in self._images.values()):
            return {}
        precision, recall = self._evaluate()
        figures = {
            "mAP": _mean(precision[..., 0, 2]),
            "AP50": _mean(precision[_IOUS == 0.5][..., 0, 2]),
            "AP75": _mean(precision[np.isclose(_IOUS, 0.75)][..., 0, 2]),
        }
        figures |= {
            f"mAP_{area}": _mean(precision[..., index, 2]) for index, area in enumerate(AREAS) if index
        }
        figures |= {f"AR_{count}": _mean(recall[..., 0, index]) for index, count in enumerate(DETECTIONS)}
        figures |= {f"AR_{area}": _mean(recall[..., index, 2]) for index, area in enumerate(AREAS) if index}
        figures |= {
            f"AP/{name}": _mean(precision[:, :, index, 0, 2]) for index, name in enumerate(self.class_names)
        }
        return {name: value for name, value in figures.items() if value is not None}

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision (IoUs, recalls, classes, areas, counts), recall (IoUs, classes, areas, counts)."""
        import hotcoco  # only needed at the end of an epoch

        geometry = "segmentation" if self.kind == "segm" else "bbox"
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for number, image_id in enumerate(sorted(self._images), start=1):  # ids are numbers in COCO
            found, truth = self._images[image_id]
            height, width = self._sizes[image_id]
            images.append({"id": number, "height": height, "width": width})
            results += [_result(item, number, geometry) for item in found]
            annotations += [
                {**item, "image_id": number, "id": len(annotations) + index}
                for index, item in enumerate(truth, start=1)
            ]
        categories = [{"id": index, "name": name} for index, name in enumerate(self.class_names)]
        coco = hotcoco.COCO({"images": images, "annotations": annotations, "categories": categories})
        evaluation = hotcoco.COCOeval(coco, coco.load_res(results), self.kind)
        evaluation.evaluate()
        evaluation.accumulate()
        curves = evaluation.eval or {}
        shape = (len(_IOUS), 101, len(self.class_names), len(AREAS), len(DETECTIONS))
        precision = np.asarray(curves["precision"]).reshape(shape)
        return precision, np.asarray(curves["recall"]).reshape(shape[:1] + shape[2:])


def _result(item: Mapping[str, Any], image: int, geometry: str) -> dict[str, Any]:
    """One entry of a results file; a second geometry would decide to which size the object counts."""
    kept = {key: item[key] for key in ("category_id", "score", geometry)}
    return {**kept, "image_id": image}


def _mean(values: np.ndarray) -> float | None:
    """Mean over what exists; -1 marks a class or size without objects."""
    present = values[values > -1]
    return float(present.mean()) if present.size else None
