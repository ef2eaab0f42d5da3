"""The AAU loss against a naive computation, and the total loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.losses import AAULoss, TotalLoss

B, UNITS = 5, 7


def naive_multilabel_soft_margin(logits: np.ndarray, targets: np.ndarray) -> float:
    """-mean over samples and units of y log s(x) + (1 - y) log(1 - s(x)), one element at a time."""
    total = 0.0
    for x, y in zip(logits.ravel(), targets.ravel(), strict=True):
        s = 1.0 / (1.0 + np.exp(-x))
        total -= y * np.log(s) + (1.0 - y) * np.log(1.0 - s)
    return total / logits.size


@pytest.fixture
def heads() -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(B, UNITS, generator=generator) * scale for scale in (0.5, 1.0, 3.0)]
    return logits, torch.randint(0, 2, (B, UNITS), generator=generator).float()


def test_aau_loss_is_the_weighted_mean_of_equation_11(heads):
    logits, targets = heads
    loss = AAULoss(3)
    with torch.no_grad():
        loss.w.copy_(torch.tensor([2.0, -1.0, 0.5]))  # a negative W_r counts by its square
    squares = np.array([4.0, 1.0, 0.25])
    each = [naive_multilabel_soft_margin(x.numpy(), targets.numpy()) for x in logits]
    expected = float(squares @ each / squares.sum())
    assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(loss.weights().detach(), squares / squares.sum(), rtol=1e-6)


def test_units_that_nobody_has_coded_teach_nothing(heads):
    logits, targets = heads
    loss, partly = AAULoss(3), targets.clone()
    partly[1] = torch.nan
    rest = [0, 2, 3, 4]
    expected = loss([head[rest] for head in logits], targets[rest]).item()
    head = logits[0].clone().requires_grad_()
    value = loss([head, *logits[1:]], partly)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert head.grad is not None and not head.grad[1].any() and head.grad[rest].all()
    assert AAULoss(1)([head], torch.full_like(targets, torch.nan)).item() == 0.0


def test_aau_gradient_flows_to_the_weights_and_favours_the_smaller_loss(heads):
    logits, targets = heads
    loss = AAULoss(3)
    each = [naive_multilabel_soft_margin(x.numpy(), targets.numpy()) for x in logits]
    loss(logits, targets).backward()
    gradient = loss.w.grad
    assert gradient is not None
    # d/dW_r = 2 W_r (L_r - L_AAU) / sum W^2, here with all W = 1
    np.testing.assert_allclose(gradient, 2.0 * (np.array(each) - np.mean(each)) / 3.0, rtol=1e-4, atol=1e-7)


def test_aau_loss_with_one_layer_is_the_plain_au_loss(heads):
    logits, targets = heads
    loss = AAULoss(1)
    value = loss(logits[:1], targets)
    assert value.item() == pytest.approx(
        naive_multilabel_soft_margin(logits[0].numpy(), targets.numpy()), rel=1e-5
    )
    value.backward()
    assert loss.w.grad is not None and abs(loss.w.grad.item()) < 1e-6


def test_aau_loss_refuses_another_number_of_heads(heads):
    logits, targets = heads
    with pytest.raises(ValueError, match="3 heads for 2 weights"):
        AAULoss(2)(logits, targets)


def test_total_loss_adds_beta_times_the_au_part(heads):
    logits, targets = heads
    classes, label = (
        torch.randn(B, 4, generator=torch.Generator().manual_seed(1)),
        torch.arange(B) % 4,
    )
    cross_entropy = TotalLoss(3, "none")(classes, logits, label, targets).item()
    probabilities = np.exp(classes.numpy()) / np.exp(classes.numpy()).sum(1, keepdims=True)
    assert cross_entropy == pytest.approx(
        -np.log(probabilities[np.arange(B), label.numpy()]).mean(), rel=1e-5
    )
    aau = AAULoss(3)(logits, targets).item()
    total = TotalLoss(3, "aau", beta=0.3)(classes, logits, label, targets).item()
    assert total == pytest.approx(cross_entropy + 0.3 * aau, rel=1e-5)


def test_au_loss_r_constrains_that_layer_alone(heads):
    logits, targets = heads
    logits = [x.clone().requires_grad_() for x in logits]
    TotalLoss(3, "au", au_layer=1)(
        torch.zeros(B, 4), logits, torch.zeros(B, dtype=torch.long), targets
    ).backward()
    assert [x.grad is not None and bool(x.grad.abs().sum() > 0) for x in logits] == [
        False,
        True,
        False,
    ]


def test_total_loss_refuses_what_the_network_does_not_have():
    with pytest.raises(ValueError, match="needs a network with action-unit heads"):
        TotalLoss(0, "aau")
    with pytest.raises(ValueError, match=r"au_layer must be 0\.\.2, not 3"):
        TotalLoss(3, "au", au_layer=3)
