"""Images as a network reads them: pixels, normalised on the device, and labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from rib.base.progress import Progress
from rib.data.dataset import EncodedImages, PreparedDataset
from rib.data.stored_array import ArrayReader, is_whole_file
from rib.models.augmentation import Augmentation, Shifts
from rib.models.class_logits import class_members

LOOK_AHEAD = 2  # batches that are read and decoded while the device computes another one
# Threads that each read a batch: the second one's reads and decoding fill the time in which the
# first one waits for the last images of its batch.
READERS = 2


class LookAhead:
    """Reads the next batches in threads while a network computes the current one.

    Threads are used in place of the processes of torch's DataLoader: Pillow and `pread` release the
    interpreter's lock, and processes take seconds to start, which is longer than many jobs compute
    (tests/benchmarks/README.md).

    Args:
        read: gives the pixels of a batch, from the rows of its images.
    """

    def __init__(self, read: Callable[[np.ndarray], Tensor]):
        self._read = read
        self._pool = ThreadPoolExecutor(READERS, "look-ahead")
        self._batches: Sequence[np.ndarray] = ()
        self._positions: dict[bytes, int] = {}  # in `_batches`, by the bytes of a batch's rows
        self._being_read: dict[int, Future[Tensor]] = {}  # by position

    def expect(self, batches: Sequence[np.ndarray]) -> None:
        """Say which batches, given by the rows of their images, will be asked for in this order.

        Nothing is read before the first of them is asked for.
        """
        self._forget(self._being_read)
        self._batches = batches
        self._positions = {rows.tobytes(): i for i, rows in enumerate(batches)}

    def pixels(self, rows: np.ndarray) -> Tensor:
        """Pixels (N, H, W, 3) uint8 of a batch, from the rows (N,) of its images.

        If the batch was expected, the next ones are read from now on. A batch can be asked for
        several times until a later one is.
        """
        position = self._positions.get(rows.tobytes())
        if position is None:
            return self._read(rows)
        self._forget([i for i in self._being_read if i < position])
        last = min(position + LOOK_AHEAD, len(self._batches) - 1)
        for i in range(position, last + 1):
            if i not in self._being_read:
                self._being_read[i] = self._pool.submit(self._read, self._batches[i])
        return self._being_read[position].result()

    def _forget(self, positions: Iterable[int]) -> None:
        """Drop the batches at these positions; a reading that hasn't begun is cancelled."""
        for position in list(positions):
            self._being_read.pop(position).cancel()


class Images:
    """Images of a dataset as a network reads them, with their labels; all on one device.

    `images[rows]` are the inputs of a network, (N, 3, H, W), for the given rows.

    Attributes:
        pixels: all stored images of the dataset, like an array (all, H, W, 3) uint8.
        rows: (n,) positions in `pixels` of the images that are used.
        labels: (n,) int64, class indices.
        members: (C, K) int64, the network outputs of each class (see rib.models.class_logits).
        augmentation: transforms images in training; None for none.
        shifts: shift images in training, before they are augmented; None for none.
        epoch: of training, from 0, on which random transforms depend; None for no transforms.

    Args:
        dataset: its pixels are usually memory-mapped, and read batch by batch.
        preprocessing: of the model, with `mean` and `std` per RGB channel, 0 to 1.
    """

    def __init__(self, dataset: PreparedDataset, preprocessing: Mapping, device: torch.device):
        assert dataset.images is not None  # of a dataset whose pixels are read
        self.pixels = dataset.images
        self.rows = np.arange(len(self.pixels)) if dataset.rows is None else dataset.rows
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.members = class_members(dataset.space, device)
        self.device = device
        self.mean = _per_channel(preprocessing["mean"], device)
        self.std = _per_channel(preprocessing["std"], device)
        self.augmentation: Augmentation | None = None
        self.shifts: Shifts | None = None
        self.epoch: int | None = None
        # It has no reference to this object: threads and files are closed when this is not used.
        self._look_ahead = LookAhead(_reader_of_pixels(self.pixels, device))

    @property
    def side(self) -> int:
        """Side of the stored images, in pixels."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        """Batch (N, 3, H, W) float32, channels last in memory; `rows` are from 0 to n - 1."""
        rows_of_images = self.rows[rows]
        pixels = self._look_ahead.pixels(rows_of_images)
        # In this thread, since random transforms set torch's one generator for a moment.
        if self.shifts and self.epoch is not None:
            pixels = torch.from_numpy(self.shifts(pixels.numpy(), self.epoch, rows_of_images))
        if self.augmentation and self.epoch is not None:
            pixels = _augmented(pixels, rows_of_images, self.augmentation, self.epoch)
        pixels = to_device(pixels, self.device).permute(0, 3, 1, 2)
        return pixels.float().sub_(self.mean).div_(self.std)

    def expect(self, batches: Iterable[np.ndarray | slice]) -> None:
        """Say which batches will be read and in which order, so that they can be read ahead.

        Others may be read as well. No pixel depends on it.
        """
        self._look_ahead.expect([self.rows[batch] for batch in batches])

    def labels_of(self, rows: np.ndarray) -> Tensor:
        """Labels (N,) of the given rows, on the device."""
        return images_at(self.labels, rows)


def _reader_of_pixels(
    images: np.ndarray | EncodedImages, device: torch.device
) -> Callable[[np.ndarray], Tensor]:
    """A function from positions (N,) of stored images to their pixels (N, H, W, 3) on the CPU.

    Args:
        device: where the pixels go next; for a GPU their memory is pinned.
    """
    stored = ArrayReader(images) if is_whole_file(images) else images
    _, *shape_of_image = images.shape

    def read_pixels(rows_of_images: np.ndarray) -> Tensor:
        pixels = memory_for_pixels((len(rows_of_images), *shape_of_image), device)
        if isinstance(stored, ArrayReader | EncodedImages):
            stored.read(rows_of_images, pixels.numpy())
        else:
            pixels.numpy()[:] = stored[rows_of_images]
        return pixels

    return read_pixels


def memory_for_pixels(shape: Sequence[int], device: torch.device) -> Tensor:
    """Memory on the CPU for pixels (N, H, W, 3) uint8 that go to a device.

    For a GPU it is pinned, so that the pixels are copied while the CPU goes on. torch keeps pinned
    memory that is no longer used for the next batches, until its last copy is done.
    """
    is_pinned = device.type == "cuda"
    return torch.empty(tuple(shape), dtype=torch.uint8, device="cpu", pin_memory=is_pinned)


def slices(number: int, batch_size: int) -> list[slice]:
    """Batches in order; 10 images, 4 per batch: [slice(0, 4), slice(4, 8), slice(8, 12)]."""
    return [slice(start, start + batch_size) for start in range(0, number, batch_size)]


def _augmented(pixels: Tensor, rows: np.ndarray, augmentation: Augmentation, epoch: int) -> Tensor:
    """Images (N, H, W, 3) uint8, transformed by their rows (N,) in the dataset and the epoch."""
    augmented = []
    for image, row in zip(pixels.permute(0, 3, 1, 2), rows.tolist(), strict=True):
        augmented.append(augmentation(image, epoch, row))
    return torch.stack(augmented).permute(0, 2, 3, 1).contiguous()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the CPU to a GPU it is copied while the CPU goes on."""
    is_copied = device.type == "cuda" and tensor.device.type == "cpu"
    if is_copied and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def images_at(tensor: Tensor, rows: np.ndarray) -> Tensor:
    """The given rows (N,) of a tensor (n, ...), on its device: (N, ...)."""
    # An index of NumPy would be copied to a GPU only after all that the GPU still has to do.
    return tensor[to_device(torch.from_numpy(rows), tensor.device)]


def _per_channel(fractions: Sequence[float], device: torch.device) -> Tensor:
    """Means or deviations per RGB channel, 0..1, as (1, 3, 1, 1) on the pixels' scale, 0..255."""
    return torch.tensor(fractions, device=device).mul(255).view(1, 3, 1, 1)


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor], images: Images | Tensor, batch_size: int, title: str
) -> Tensor:
    """Outputs (n, ...) of a function for all images in their order, computed batch by batch.

    Args:
        function: gives the outputs (N, ...) of a batch of N images.
        images: n of them.
        batch_size: images per call of the function.
        title: of the progress bar.
    """
    outputs: Tensor | None = None
    batches = slices(len(images), batch_size)
    if isinstance(images, Images):
        images.expect(batches)
    for batch in Progress(batches, desc=title, unit="batch"):
        batch_outputs = function(images[batch])
        if outputs is None:
            # Made at full size, since concatenating the batches at the end would need twice the
            # memory. Only the first outputs show their shape and type.
            outputs = batch_outputs.new_empty(len(images), *batch_outputs.shape[1:])
        outputs[batch.start : batch.start + len(batch_outputs)] = batch_outputs
    assert outputs is not None  # there is at least one image
    return outputs
