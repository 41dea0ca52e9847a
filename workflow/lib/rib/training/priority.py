"""Which trainings start first, without torch."""

from rib.config.run import images_of
from rib.training.settings import TrainingSettings


def images_to_train(training: TrainingSettings, size: str, images_of_target: int | None) -> int:
    """Images that a run is trained on, with repetitions: 3,000 in 3 epochs of 1,000 images.

    Budgets and splits are left out, since trainings are only compared.

    Args:
        size: of the run, such as `all` or `1000`.
        images_of_target: number of images of the target; None if it isn't known yet, for which 0
            images are assumed.
    """
    if not images_of_target:
        return 0
    images = images_of(size, images_of_target)
    steps = training.total_steps(images, images_of_target)
    return training.images_seen(steps, images)


def priority_of_training(images: int, most_images: int) -> float:
    """Snakemake's priority of a training, the higher the longer it takes.

    Then the last jobs of a grid are short ones, which keep all GPUs busy to the end. It is 0 to
    below 1, the lowest priority of an evaluation.

    Args:
        images: that it is trained on, with repetitions.
        most_images: those of the longest training.
    """
    return images / (most_images + 1)
