"""The plain loop that ours is measured against: what one writes first, correct and without tricks.

As in the released code: a DataLoader whose worker processes augment images one by one with torchvision, networks in
float32 and PyTorch's standard memory layout, a block's images kept on the host and replayed from there, each loss
fetched by `.item()` as soon as it is there, and a teacher that is trained along for every interval. Where that code
leaves the paper's text (O1 to O10 in docs/reference/switches.md), this follows the paper, so that both loops compute
the same.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from spaced_kd.data.dataset import Data


class Images(Dataset):
    """Training images with the usual transforms: PIL image -> crop from a border of 4, flip, tensor, standardised."""

    def __init__(self, data: Data) -> None:
        self.images, self.labels = data.images["train"].cpu().numpy(), data.labels["train"].cpu().numpy()
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(data.image_size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, np.int64]:
        return self.transform(self.images[number]), self.labels[number]


def loader(data: Data, batch_size: int, workers: int) -> DataLoader:
    """Shuffled batches (B, 3, H, W), (B,)."""
    return DataLoader(Images(data), batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


class Plain:
    """Teacher and student of one network, each with an optimiser.

    Args:
        teacher, student: networks; `network(images, exits=True)[-1]` has logits and features.
        device: where they train.
        lr, momentum, weight_decay: of SGD.
        alpha, temperature, beta: of the student's losses.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        device: torch.device,
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        alpha: float = 0.3,
        temperature: float = 3.0,
        beta: float = 0.03,
    ) -> None:
        self.teacher, self.student, self.device = teacher.to(device), student.to(device), device
        self.alpha, self.temperature, self.beta = alpha, temperature, beta
        recipe = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        self.of_teacher = torch.optim.SGD(self.teacher.parameters(), **recipe)
        self.of_student = torch.optim.SGD(self.student.parameters(), **recipe)

    def turns(self, batches: Iterable[tuple[Tensor, Tensor]], interval: int) -> Iterator[str]:
        """Train: the teacher on `interval` batches, then the student on the same; yields who has learnt, each time."""
        kept: list[tuple[Tensor, Tensor]] = []
        for images, labels in batches:
            self.teacher_step(images.to(self.device), labels.to(self.device))
            kept.append((images.cpu(), labels.cpu()))
            yield "teacher"
            if len(kept) == interval:
                yield from self._replay(kept)
                kept = []
        yield from self._replay(kept)

    def teacher_step(self, images: Tensor, labels: Tensor) -> float:
        """One update of the teacher; its loss."""
        self.teacher.train()
        self.of_teacher.zero_grad()
        loss = F.cross_entropy(self.teacher(images), labels)
        loss.backward()
        self.of_teacher.step()
        return loss.item()

    def student_step(self, images: Tensor, labels: Tensor) -> tuple[float, ...]:
        """One update of the student on labels and on the teacher as it stands; its losses."""
        self.teacher.eval()
        with torch.no_grad():
            target = self.teacher(images, exits=True)[-1]
        self.student.train()
        self.of_student.zero_grad()
        said, T = self.student(images, exits=True)[-1], self.temperature  # noqa: N806 (letter of the formula)
        hard = (1 - self.alpha) * F.cross_entropy(said.logits, labels)
        log_q, p = F.log_softmax(said.logits / T, dim=1), F.softmax(target.logits / T, dim=1)
        soft = self.alpha * T**2 * F.kl_div(log_q, p, reduction="batchmean")
        feature = self.beta * F.mse_loss(said.features, target.features)
        loss = hard + soft + feature
        loss.backward()
        self.of_student.step()
        return hard.item(), soft.item(), feature.item(), loss.item()

    def _replay(self, kept: list[tuple[Tensor, Tensor]]) -> Iterator[str]:
        for images, labels in kept:
            self.student_step(images.to(self.device), labels.to(self.device))
            yield "student"
