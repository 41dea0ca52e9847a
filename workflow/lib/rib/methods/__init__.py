"""Fine-tuning methods, one algorithm per module. No torch here: averages don't need it.

The entry in methods.yaml lists an algorithm's settings with their defaults, and `form` says what
its module has. Of the form `finetune` it is one class that inherits from
`rib.methods.base.FineTuning`. Its settings are its fields:

    from pydantic.dataclasses import dataclass

    @dataclass(kw_only=True)
    class LearningWithoutForgetting(FineTuning):
        temperature: Positive
        distil: Literal["all", "class"]

Other forms are merges. Then the module has a function with the form's name, whose settings are its
keyword-only arguments:

    coefficients(parents, *, <settings>) -> {parent: coefficient}
    curve(parents, *, <settings>) -> {alpha: {parent: coefficient}}
    select(parents, score, *, <settings>) -> {parent: coefficient}

whose coefficients add up to 1. A parent is named by its method and, in a merge over seeds or
targets, by what it differs in, such as `ft, seed 1`. `score` returns the accuracy of the average
with such coefficients on the select split of the target, so `select` needs protocol `held_out`. One
that needs more than coefficients is one of

    merge(states, *, <settings>) -> iterator of (name, tensor)
    ensemble(networks, *, <settings>) -> network

and runs whenever the merged run is loaded; only its name and settings are stored. `merge` yields
the merged parameters one by one, in the network's order, from `states`
(rib.models.checkpoint.StatesToMerge), which reads the parents' tensors by name when they are asked
for. Buffers are averaged and counters kept without it. If it has the setting `fisher_images`, its
second argument is the diagonal Fisher information of each parent, which is computed first on at
most so many of the parent's training images: {parent: {name: tensor}}. `ensemble` makes one network
of those of the pretrained model and the parents, by name. In the entry `fewest_parents` is the
smallest number of parents, and `most_images` the largest number of images of an evaluated dataset.

An algorithm that trains with the Fisher information of its start has the settings `fisher`,
`sampled` or `empirical` (see rib.models.fisher), and `fisher_images`. If there is a pretraining
proxy and it starts from the pretrained model, the workflow computes it once for all targets, and
the task has it (rib.methods.base.Task).

Settings have no defaults here. When the first job of a method starts, pydantic checks them against
their annotations: types, `Literal` with texts to choose from, and the ranges below.
"""

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
UpToOne = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def stated_in(method: str) -> str:
    """Where a user states the settings of a method, for messages.

    Of `lora-rank4` it is `methods.yaml, lora, or in method_settings`.
    """
    entry, _, _ = method.partition("-")  # a variant's name goes on with its settings
    return f"methods.yaml, {entry}, or in method_settings"
