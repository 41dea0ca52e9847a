"""What a method's entry and its algorithm's class must both say. No torch."""

from pydantic import Field

from rib.base.params import Settings


class MethodFacts(Settings):
    """Facts of a method, such as MethodFacts(text_tower=True). All are False for full fine-tuning.

    Memory, plan and rules read them from the method's entry, without importing its algorithm. The
    class states them as attributes of the same names (rib.methods.base.FineTuning). A description
    is what an entry states.
    """

    pretrained_teacher: bool = Field(False, description="pretrained_teacher: true")
    stored_outputs: bool = Field(False, description="stored_outputs")
    large_outputs_on_host: bool = Field(False, description="stored_outputs: {large_on_host: true}")
    padding_prompt: bool = Field(False, description="padding_prompt: true")
    text_tower: bool = Field(False, description="text: required")
    fisher_information: bool = Field(False, description="fisher_information: true")
