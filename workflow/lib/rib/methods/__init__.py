"""Fine-tuning methods, one algorithm per module. No torch here: averages don't need it.

The entry in methods.yaml lists an algorithm's settings with their defaults, and its `form`: whether
it trains (`finetune`), or how it merges fine-tuned models. A module of the form `finetune` has one
subclass of `rib.methods.base.FineTuning`, whose fields are the settings:

    from pydantic.dataclasses import dataclass

    @dataclass(kw_only=True)
    class LearningWithoutForgetting(FineTuning):
        temperature: Positive
        distil: Literal["all", "class"]

The other forms are merges: the module has a function with the form's name, whose keyword-only
arguments are the settings. Three forms give coefficients of averages, which add up to 1; a curve
has one average for each alpha, such as the share (0 to 1) of the fine-tuned model:

    coefficients(parents, *, <settings>) -> {parent: coefficient}
    curve(parents, *, <settings>) -> {alpha: {parent: coefficient}}
    select(parents, score, *, <settings>) -> {parent: coefficient}

A parent is a fine-tuned model, named `ft` after its method, or `ft, seed 1` if seeds or targets
are merged. `score` gives the accuracy of an average on the target's select split, held-out images
that only protocol `held_out` has. Two forms need more than coefficients:

    merge(states, *, <settings>) -> iterator of (name, tensor)
    ensemble(networks, *, <settings>) -> network

They run whenever the merged model is loaded; only their name and settings are stored. `merge`
yields the merged parameters in the network's order; `states` is a
`rib.models.checkpoint.StatesToMerge`. Buffers are averaged without it. With
`fisher_information: true` in the entry its second argument is {parent: {name: tensor}}: the
diagonal Fisher information of each parent on at most `fisher_images` of its training images.
`networks` are the pretrained network and the parents, by name. In the entry, `fewest_parents` is
the smallest number of parents, and `most_images` the largest number of images of an evaluated
dataset.

An algorithm that trains with the Fisher information of its start has `fisher_information: true` in
its entry, and the settings `fisher` (`sampled` or `empirical`) and `fisher_images`. If the family
has a pretraining proxy, images that stand in for the pretraining data, and training starts from the
pretrained model, the workflow computes it once and passes it in `Task.fisher`.

Settings have no defaults here. When a method's first job starts, pydantic checks them against the
annotations, such as the ranges below.
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
    """Where a user corrects a method's settings, for error messages.

    "lora-rank4" gives "methods.yaml, lora, or in method_settings".
    """
    entry, _, _ = method.partition("-")  # `lora-rank4` is the entry `lora` with another rank
    return f"methods.yaml, {entry}, or in method_settings"
