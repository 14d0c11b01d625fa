"""The network: dense 3x3 convolutions, 28 MMAC, 223 thousand parameters."""
import torch
from torch import nn


def cbr(i, o, stride=1, kernel=3):
    return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class Residual(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = cbr(c, c)
        self.b = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))

    def forward(self, x):
        return torch.relu(x + self.b(self.a(x)))


class FaceState(nn.Module):
    """[N,3,112,112] in -1..1 to [N,6]: four logits, yaw and pitch in units of 45 degrees."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(cbr(3, 16, 2), cbr(16, 32, 2), cbr(32, 32), cbr(32, 48, 2), Residual(48),
                                  cbr(48, 64, 2), Residual(64), cbr(64, 16, 1, 1))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Sequential(nn.Linear(16 * 49, 64), nn.ReLU(inplace=True), nn.Linear(64, 6))

    def forward(self, x):
        return self.head(self.drop(self.body(x).flatten(1)))
