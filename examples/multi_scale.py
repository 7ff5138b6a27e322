"""A network of one's own: Life-IQA that looks at each crop at several scales.

Copy it into your folder, and train it:

    lifeiqa train -opt options/train/biq2021.yml --import multi_scale \
        --force-yml network:type=MultiScaleLifeIQA "network:scales=[1.0, 0.5]"

Its checkpoints are read wherever it has been imported: ``import multi_scale``, then ``create_metric("lifeiqa",
pretrained_model_path="experiments/biq2021/models/net_best.safetensors")``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from lifeiqa_plugin import LifeIQA


class MultiScaleLifeIQA(LifeIQA):
    """Mean of the query scores over scales; the backbone must take images of any size.

    Args:
        *args: as LifeIQA.
        scales: factors of the crop's side, the first of which is also what the side losses are of.
        **options: as LifeIQA.
    """

    def __init__(self, *args: Any, scales: tuple[float, ...] = (1.0, 0.5), **options: Any) -> None:
        super().__init__(*args, **options)
        self.config["scales"] = scales  # what a checkpoint keeps, and gives back
        self.scales = scales

    def forward_crops(self, crops: torch.Tensor, need_weights: bool = False) -> Any:
        """Score (B, 3, S, S) crops at every scale."""
        outputs = []
        for scale in self.scales:
            scaled = F.interpolate(crops, scale_factor=scale, mode="bilinear", antialias=True)
            outputs.append(super().forward_crops(scaled, need_weights))
        query_scores = torch.stack([output.query_scores for output in outputs]).mean(0)
        return outputs[0]._replace(query_scores=query_scores)
