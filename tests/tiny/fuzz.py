"""What fuzz tests share: values that nobody means, and trees with such values in them.

What may come of either is checked here, too. `FUZZ_EXAMPLES=5000 pytest tests/unit/test_fuzz.py`
tries so many examples of each test, others every time.
"""

import copy
import datetime
import os
import time
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rib.base.errors import UserError

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
LONGEST = 3000  # characters of a sentence, most of them known names
SLOWEST = 2.0  # seconds of processor time that any input may take

POINTING = [
    "..",
    ".",
    "",
    "../x",
    "../../../../x",
    "/tmp/x",
    "a/b",
    "a/../../b",
    "a\\b",
    "~",
    "~nobody_here/x",
]
ODD = ["a\n", "a\nb", "a\0b", "a b", "é", "-rf", "*", "{x}", "{0.real}", "%s", "$HOME"]
MEANT = ["all", "default", "none", "pretrained", "native", "true", "nan", "1e400", "1e3", "0x10"]
NAMES = st.sampled_from(POINTING + ODD + MEANT) | st.text(max_size=6)
NUMBERS = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        7,
        1 << 31,
        1 << 63,
        10**400,
        0.0,
        1.0,
        0.5,
        -0.0,
        1e-13,
        1e300,
        float("nan"),
        float("inf"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | NAMES
    | st.just(datetime.date(2020, 1, 1))
    | st.just(b"\xff")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.integers(0, 9) | st.none(), inner, max_size=3)
    ),
    max_leaves=5,
)


def fuzzed(examples: int) -> settings:
    """Settings of a fuzz test.

    Args:
        examples: how many there are, the same every time. FUZZ_EXAMPLES gives another number, and
            then they are others every time.
    """
    return settings(
        derandomize=EXAMPLES is None,
        max_examples=int(EXAMPLES or examples),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(call: Callable):
    """What a call returns, or the sentence with which it refused.

    All else that it raises, or a hang, is a defect.
    """
    started = time.process_time()
    try:
        return call()
    except UserError as error:
        sentence = str(error)
    finally:
        assert time.process_time() - started < SLOWEST
    assert len(sentence) < LONGEST, sentence
    assert sentence.endswith(".") and len(sentence.split()) > 3 and "Traceback" not in sentence, (
        sentence
    )
    return sentence


@st.composite
def mutated(draw, tree, values=VALUES, most: int = 2):
    """A tree of dicts and lists with a node or two replaced, taken out, renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        nodes = list(_nodes(tree))
        if not nodes:
            break
        holder, key = draw(st.sampled_from(nodes))
        change = draw(st.sampled_from(["replace", "replace", "replace", "delete", "rename", "add"]))
        if change == "replace" or isinstance(holder, list):
            holder[key] = draw(values)
        elif change == "add":
            holder[draw(NAMES)] = draw(values)
        else:
            value = holder.pop(key)
            if change == "rename":
                holder[draw(NAMES | st.integers(0, 9))] = value
    return tree


def _nodes(tree) -> Iterator[tuple[dict | list, object]]:
    """Every node below the top, as what holds it and its key there."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _nodes(tree[key])
