"""The loss: cross-entropy of the classes plus the (adaptive) action-unit loss (paper, section III-D)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AuLossName = Literal["none", "au", "aau"]


class AAULoss(nn.Module):
    """Adaptive action-unit loss, equation 11: sum_r W_r^2 L_r / sum_r W_r^2, the W_r learned.

    L_r is MultiLabelSoftMarginLoss of the head after the r-th constrained layer, over the action units that
    are known: not every database has them coded. With one layer this is the plain AU loss.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(layers))

    def weights(self) -> Tensor:
        """(layers,): W_r^2 / sum W_r^2, what Table VIII prints; they sum to 1."""
        squares = self.w.square()
        return squares / squares.sum()

    def forward(self, logits: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Scalar loss of `logits`, one (B, action units) tensor a layer, against `targets` in {0, 1}, NaN
        where nobody has coded it; 0 if that is everywhere.

        Raises:
            ValueError: the number of heads is not the number of weights.
        """
        if len(logits) != len(self.w):
            raise ValueError(f"{len(logits)} heads for {len(self.w)} weights")
        known = (~targets.isnan()).to(targets.dtype)
        active = targets.nan_to_num()
        losses = torch.stack([F.multilabel_soft_margin_loss(head, active, known) for head in logits])
        return torch.sum(self.weights() * losses) / known.mean().clamp(min=1.0 / known.numel())


class TotalLoss(nn.Module):
    """L_T = L_ME + beta * L_AAU, equation 12.

    Args:
        heads: number of action-unit heads of the network.
        kind: "none" (cross-entropy alone), "au" (one layer constrained) or "aau" (all).
        au_layer: which head the plain AU loss constrains, counted from the fusion layer (0 = fusion).
        beta: weight of the action-unit loss; the paper's ablations use 1.
    """

    def __init__(self, heads: int, kind: AuLossName = "aau", au_layer: int = 0, beta: float = 1.0) -> None:
        super().__init__()
        if kind != "none" and heads == 0:
            raise ValueError(f"loss {kind!r} needs a network with action-unit heads")
        if kind == "au" and not 0 <= au_layer < heads:
            raise ValueError(f"au_layer must be 0..{heads - 1}, not {au_layer}")
        self.beta = beta
        self.constrained = {
            "none": slice(0),
            "au": slice(au_layer, au_layer + 1),
            "aau": slice(None),
        }[kind]
        self.aau = None if kind == "none" else AAULoss(1 if kind == "au" else heads)

    def forward(
        self,
        classes: Tensor,
        action_units: Sequence[Tensor],
        label: Tensor,
        units: Tensor,
    ) -> Tensor:
        """Scalar loss.

        Args:
            classes: (B, classes) logits.
            action_units: one (B, action units) tensor of logits a head.
            label: (B,) int64 class indices.
            units: (B, action units) float, 1 where the unit is active, NaN where that is not known.
        """
        loss = F.cross_entropy(classes, label)
        if self.aau is None:
            return loss
        return loss + self.beta * self.aau(action_units[self.constrained], units)
