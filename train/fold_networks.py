"""The networks of several folds side by side, in two forms that compute the same.

`OneFold` is the network itself. `ManyFolds` holds the weights of K networks in tensors with a leading fold
dimension and runs them as one computation (`torch.func.vmap`): what fills a GPU, on which a single small
network leaves most of it idle. Batch normalisation takes its statistics in each fold apart.

Graph networks are trained in double precision. Training amplifies differences in the last digit: in single
precision the two forms, or two kinds of processor, disagree on every thirtieth sample after 30 epochs. In
double precision they agree on all, at about twice the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from streamer.errors import UsageError
from train.losses import TotalLoss
from train.models import GTSGN, ModelConfig, Output, ResNet18, build_model
from train.pictures import augmented, to_input
from train.results import RunSpec
from train.sweep_data import RunData

I64 = NDArray[np.int64]

MOMENTUM = 0.1
"""Of the running statistics of batch normalisation, as PyTorch has it."""

EVALUATION_BATCH = 256
PICTURES_BATCH = 32


class Learner(nn.Module):
    """A network with its loss."""

    def __init__(self, network: nn.Module, loss: TotalLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, x: Tensor, label: Tensor | None = None, units: Tensor | None = None) -> Any:
        """The network's answer; or, given the truth, the scalar loss of a batch and how many are right."""
        output = self.network(x)
        if isinstance(output, Tensor):
            output = Output(output, [], [])
        if label is None or units is None:
            return output
        loss = self.loss(output.classes, output.action_units, label, units)
        return loss, (output.classes.detach().argmax(1) == label).sum()


def build_learner(spec: RunSpec, classes: int, units: int) -> Learner:
    """A fresh network, initialised from the seed alone.

    Raises:
        UsageError: the action-unit loss has no action unit to constrain.
    """
    if spec.au_loss != "none" and not units:
        raise UsageError(f"{spec.name}: no action unit is frequent enough to constrain: use au_loss none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        if spec.model in ("resnet18-s", "resnet18-st"):
            return Learner(ResNet18(classes), TotalLoss(0, "none"))
        config = ModelConfig(spec.model, spec.fusion_layer, spec.lam)
        heads = units if spec.au_loss != "none" else 0
        network = build_model(config, spec.features, classes, heads)
    count = len(network.action_units) if isinstance(network, GTSGN) else 0
    return Learner(network, TotalLoss(count, spec.au_loss, spec.au_layer - spec.fusion_layer, spec.beta))


class FoldNetworks(ABC):
    """K networks on the same data. Data lie on `device` once; batches are picked there by index.

    Args:
        learners: one a fold, of equal shape.
    """

    def __init__(self, learners: list[Learner], data: RunData, device: torch.device) -> None:
        self.folds = len(learners)
        self.parameters_each = sum(p.numel() for p in learners[0].parameters())
        self._device, self._pictures = device, data.inputs.dtype == np.uint8
        dtype = torch.float32 if self._pictures else torch.float64
        inputs = torch.from_numpy(data.inputs)
        self._inputs = inputs.to(device) if self._pictures else inputs.to(device, dtype)
        self._label = torch.from_numpy(data.label).to(device)
        self._units = torch.from_numpy(data.units).to(device, dtype)
        self._learners = [learner.to(device, dtype) for learner in learners]

    @property
    @abstractmethod
    def trained(self) -> list[Tensor]:
        """The parameters, for an optimiser."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Name -> (K, ...) parameters and buffers: the tensors themselves."""

    @abstractmethod
    def losses(self, samples: Tensor, views: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(K,) losses and numbers of right answers in training mode. samples, views: (K, B) indices."""

    @abstractmethod
    def _answers(self, samples: Tensor) -> Output:
        """(K, B, ...) of one batch in evaluation mode, view 0; samples: (K, B)."""

    def begin_step(self, step: int) -> None:
        """Before the losses of each step, from 0. Running statistics are the mean over the first ten steps,
        then a moving one, so that the variance of 1 that they begin with has no weight: after 30 steps it
        would still be twenty times that of a displacement, and what is tested would be scaled down."""
        for learner in self._learners:
            for module in learner.modules():
                if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    module.momentum = max(MOMENTUM, 1.0 / (step + 1))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set parameters and buffers."""
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])

    def answers(self, samples: I64) -> Output:
        """Classes and action units as (K, S, ...); features as mean over frames and nodes, (K, S, channels).

        samples: (K, S) indices.
        """
        batch = PICTURES_BATCH if self._pictures else EVALUATION_BATCH
        with torch.no_grad():
            chunks = self.to_device(samples).split(batch, 1)
            parts = [self._answers(chunk) for chunk in chunks]
        heads = [torch.cat(head, 1) for head in zip(*(p.action_units for p in parts), strict=True)]
        pooled = [[f.mean((2, 3)) for f in p.features] for p in parts]
        features = [torch.cat(layer, 1) for layer in zip(*pooled, strict=True)]
        return Output(torch.cat([p.classes for p in parts], 1), heads, features)

    def to_device(self, indices: I64) -> Tensor:
        """Indices where the data are."""
        return torch.from_numpy(indices).to(self._device)

    def _batch(
        self, samples: Tensor, views: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = self._inputs[samples, views]
        if self._pictures:
            x = augmented(x.flatten(0, 1), rng).unflatten(0, samples.shape)
        return x, self._label[samples], self._units[samples]

    def _view0(self, samples: Tensor) -> Tensor:
        x = self._inputs[samples, 0]
        return to_input(x) if self._pictures else x


class OneFold(FoldNetworks):
    """A single network; K is 1."""

    def __init__(self, learners: list[Learner], data: RunData, device: torch.device) -> None:
        super().__init__(learners, data, device)
        self._learner = self._learners[0]

    @property
    def trained(self) -> list[Tensor]:
        return list(self._learner.parameters())

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.detach()[None] for name, tensor in self._learner.state_dict().items()}

    def losses(self, samples: Tensor, views: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        self._learner.train()
        x, label, units = self._batch(samples, views, rng)
        loss, right = self._learner(x[0], label[0], units[0])
        return loss[None], right[None]

    def _answers(self, samples: Tensor) -> Output:
        self._learner.eval()
        output = self._learner(self._view0(samples[0]))
        heads, features = ([tensor[None] for tensor in part] for part in output[1:])
        return Output(output.classes[None], heads, features)


class ManyFolds(FoldNetworks):
    """K graph networks as one computation."""

    def __init__(self, learners: list[Learner], data: RunData, device: torch.device) -> None:
        super().__init__(learners, data, device)
        self._parameters, self._buffers = stack_module_state(list[nn.Module](self._learners))
        self._learner = self._learners[0]  # its code alone; its weights are not looked at

    @property
    def trained(self) -> list[Tensor]:
        return list(self._parameters.values())

    def state(self) -> dict[str, Tensor]:
        kept = self._learner.state_dict().keys()  # without the fixed graphs
        both = self._parameters | self._buffers
        return {name: both[name].detach() for name in kept}

    def losses(self, samples: Tensor, views: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        self._learner.train()
        x, label, units = self._batch(samples, views, rng)

        return self._run(x, label, units)

    def _answers(self, samples: Tensor) -> Output:
        self._learner.eval()
        return self._run(self._view0(samples))

    def _run(self, *batch: Tensor) -> Any:
        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Any:
            return functional_call(self._learner, (parameters, buffers), inputs)

        return vmap(one)(self._parameters, self._buffers, *batch)
