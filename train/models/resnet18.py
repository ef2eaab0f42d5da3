"""ResNet18 on key frames: the picture network that the paper compares its graphs with (Table III).

He et al., Deep Residual Learning for Image Recognition (2016), table 1, 18 layers.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

STAGES = (64, 128, 256, 512)
SIDE = 224
"""Pixels, height and width of the input."""


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = _convolution(outputs, outputs, 3, 1)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(h)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet18 (S) reads the apex frame in three colours, ResNet18 (ST) the three grey key frames as three
    channels: the same network, (B, 3, 224, 224) -> (B, classes) logits.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _convolution(3, STAGES[0], 7, 2)
        self.stem_norm = nn.BatchNorm2d(STAGES[0])
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        blocks = []
        inputs = STAGES[0]
        for stage, outputs in enumerate(STAGES):
            blocks += [Block(inputs, outputs, 1 if stage == 0 else 2), Block(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.stem_norm(self.stem(x))))
        return cast("Tensor", self.linear(self.blocks(x).mean(dim=(2, 3))))
