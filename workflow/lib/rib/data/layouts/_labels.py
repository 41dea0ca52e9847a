"""Classes and slices of images, from texts or numbers that a file states for each of them."""

from collections import Counter
from collections.abc import Sequence

from rib.base.errors import UserError
from rib.base.progress import log
from rib.base.text import printable
from rib.catalog.label_space import imagenet_wnids
from rib.data.images import DatasetSource
from rib.schema.fields import is_whole
from rib.schema.messages import nearest, show

LONGEST_TEXT = 1000  # characters of a label, an id or a slice
LARGEST_NUMBER = (1 << 63) - 1  # limit of the index's integer columns


class Classes:
    """Finds the class of each image by its label, and notes labels and classes that don't fit.

    A label is the key of a class (`n01440764`); the name of a single class (`tench`); or an
    integer, the position of a key or name in a list.

    Args:
        dataset: its label space has the classes.
        names: of the labels 0, 1, ...; None if the files state them, or have texts.
        in_class_order: whether the labels 0, 1, ... are the classes in the entry's order.
        partial: whether classes may lack images.

    Raises:
        UserError: there are two lists of names, or a name occurs twice.
    """

    def __init__(
        self,
        dataset: DatasetSource,
        *,
        names: Sequence[str] | None,
        in_class_order: bool,
        partial: bool,
    ):
        if names is not None and in_class_order:
            raise UserError(
                f"{dataset}: its settings have names as well as in_class_order; remove one."
            )
        if names is not None and len(set(names)) < len(names):
            raise UserError(
                f"{dataset}: the names in its settings contain one twice; give each number its own."
            )
        self._dataset = dataset
        self._names = dataset.space.keys if in_class_order else names
        self._partial = partial
        self._class_of_text = _class_of_each_text(dataset)
        self._classes_without_images = set(range(len(dataset.space.keys)))
        self._images_of_no_class = 0
        self._first_label_of_no_class = ""

    def class_of(
        self, label: object, image: str, names_in_file: Sequence[str] | None = None
    ) -> int | None:
        """The class index of an image by its label; None if the label is no class.

        Args:
            label: text or an integer.
            image: the image in messages.
            names_in_file: of the labels 0, 1, ...; names in the settings come first.

        Raises:
            UserError: the label is neither text nor number, or a number without a name.
        """
        if is_whole(label):
            text = self._name_of_number(label, image, names_in_file)
        elif isinstance(label, str):
            text = label
        else:
            raise UserError(
                f"{self._dataset}: the label of {image} is {show(label)}, which is neither text "
                "nor a whole number; correct label in its settings."
            )
        class_index = self._class_of_text.get(text)
        if class_index is None:
            if not self._images_of_no_class:
                self._first_label_of_no_class = text
            self._images_of_no_class += 1
        return class_index

    def _name_of_number(self, number: int, image: str, names_in_file: Sequence[str] | None) -> str:
        """`tench` for 0, by the names in the settings or else in the file."""
        names = names_in_file if self._names is None else self._names
        if names is None:
            raise UserError(
                f"{self._dataset}: the label of {image} is the number {show(number)}, and nothing "
                "says which class that is; list the names of the numbers 0, 1, ... as names in its "
                "settings, or set in_class_order."
            )
        if not 0 <= number < len(names):
            raise UserError(
                f"{self._dataset}: the label of {image} is the number {show(number)}, but only 0 "
                f"to {len(names) - 1} have names; leave the image out, or correct names in the "
                "dataset's settings."
            )
        return names[number]

    def add_image(self, class_index: int) -> None:
        """Note that a class has an image."""
        self._classes_without_images.discard(class_index)

    def refuse_mismatch(self) -> None:
        """Refuse or log labels and classes that don't fit, after all images were read.

        Published files may show more classes than the dataset scores, and a dataset may have only
        some of the classes that the network distinguishes: other images are then left out.
        Otherwise a label that is no class is a mistake.

        Raises:
            UserError: a label is a mistake, or a class has no image (unless partial).
        """
        space = self._dataset.space
        if self._images_of_no_class:
            hint = nearest(self._first_label_of_no_class, self._class_of_text)
            message = (
                f"{self._dataset}: {self._images_of_no_class} images have a label that is none of "
                f"the classes, the first is {show(self._first_label_of_no_class)}{hint}"
            )
            are_imagenet_classes = set(space.keys) <= set(imagenet_wnids())
            are_only_some_classes = len(space.keys) != space.num_classes
            if not are_imagenet_classes and not are_only_some_classes:
                raise UserError(
                    f"{message}; add it to the class file, or correct label or names in its "
                    "settings."
                )
            log.warning("left out: %s", message)
        if self._classes_without_images and not self._partial:
            first_key = space.keys[min(self._classes_without_images)]
            raise UserError(
                f"{self._dataset}: there is no image with the label '{first_key}' "
                f"({len(self._classes_without_images)} of {len(space.keys)} classes lack images); "
                "correct label or names in its settings, leave the class out in its entry, or set "
                "partial: true."
            )


def _class_of_each_text(dataset: DatasetSource) -> dict[str, int]:
    """Class index by text of a label, a key or unique name: {"n01440764": 0, "tench": 0}."""
    space = dataset.space
    classes_of_name = Counter(space.names)
    class_of_text = {}
    for class_index, name in enumerate(space.names):
        if classes_of_name[name] == 1:
            class_of_text[name] = class_index
    for class_index, key in enumerate(space.keys):  # keys take precedence over names
        class_of_text[key] = class_index
    return class_of_text


def slice_level(stated: object, name: str, image: str, dataset: DatasetSource) -> str | int:
    """Check a value by which accuracies are split, such as `fog` or 3, and make it printable.

    Args:
        stated: by a file; text or an integer, if the file is right.
        name: of the column or field.
        image: the image in messages.

    Raises:
        UserError: the value has another type, or is too long or too large.
    """
    if is_whole(stated) and abs(stated) <= LARGEST_NUMBER:
        return stated
    if isinstance(stated, str) and len(stated) <= LONGEST_TEXT:
        return printable(stated)
    raise UserError(
        f"{dataset}: '{name}' of {image} is {show(stated)}, which is neither text of at most "
        f"{LONGEST_TEXT} characters nor a whole number; leave '{name}' out of its settings."
    )
