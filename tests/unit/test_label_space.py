"""Label spaces: which of a network's outputs are classes, read from tables and lists."""

import pytest

from rib.base.errors import UserError
from rib.catalog.label_space import (
    LabelSpace,
    imagenet_wnids,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_timm_list,
    read_wnid_list,
)

# Classes of ImageNet-1K, and their indices.
ANT = "n02219486"
BEE = "n02206856"
FLY = "n02190166"
ANT_INDEX = 310
BEE_INDEX = 309
FLY_INDEX = 308
# First lines of tables.
CLASS_MAP = "emoji,codepoint,wnids,reason\n"
CLASS_MAP_WITH_ALSO = "emoji,codepoint,wnids,also,reason\n"
INDEX_MAP = "key,indices\n"
WNID_LIST = "wnid\n"
OWN_CLASSES = "key,name\n"


@pytest.fixture
def write_table(tmp_path):
    """A function that writes classes.csv and gives its path."""

    def write(text):
        path = tmp_path / "classes.csv"
        path.write_text(text)
        return path

    return write


def test_there_are_1000_wnids_in_order():
    wnids = list(imagenet_wnids())
    assert len(wnids) == 1000
    assert wnids == sorted(set(wnids))
    assert wnids[0] == "n01440764"
    assert wnids.index(ANT) == ANT_INDEX


def test_a_class_map_becomes_indices(write_table):
    space = read_class_map(write_table(CLASS_MAP + f"ant,1f41c,{ANT} {BEE},insects\n"))
    assert space.keys == ("1f41c",)
    assert space.names == ("ant",)
    assert space.indices == ((BEE_INDEX, ANT_INDEX),)


def test_a_wnid_list_is_ordered_by_index(write_table):
    space = read_wnid_list(write_table(WNID_LIST + f"{ANT}\n{BEE}\n"))
    assert space == LabelSpace(
        keys=(BEE, ANT), indices=((BEE_INDEX,), (ANT_INDEX,)), names=(BEE, ANT)
    )


@pytest.mark.parametrize(
    ("read", "text", "place"),
    [
        (read_class_map, CLASS_MAP + f"ant,1f41c,{ANT},\n", "line 2: ant"),
        (read_class_map, CLASS_MAP + "ant,1f41c,n99999999,r\n", "line 2: ant .*n99999999"),
        (
            read_class_map,
            CLASS_MAP + f"ant,1f41c,{ANT},r\nbee,1f41d,{ANT},r\n",
            f"line 3: {ANT} .*ant and bee",
        ),
        (
            read_class_map,
            CLASS_MAP + f"ant,1f41c,{ANT},r\nbee,1f41c,{BEE},r\n",
            "line 3: 1f41c .*ant and bee",
        ),
        (
            read_class_map,
            CLASS_MAP + f"ant,1f41c,{' '.join(imagenet_wnids()[:11])},r\n",
            "line 2: ant has 11 ",
        ),
        (read_class_map, CLASS_MAP + f"ant,1f41c,{ANT}\n", "line 2: .*4"),
        (read_class_map, "emoji,codepoint,wnids\n", "reason"),
        (
            read_class_map,
            CLASS_MAP_WITH_ALSO + f"ant,1,{ANT},,r\nbee,2,{BEE},wasp,r\n",
            "line 3: bee lists wasp in also",
        ),
        (
            read_class_map,
            CLASS_MAP_WITH_ALSO + f"ant,1,{ANT},bee ant,r\nbee,2,{BEE},,r\n",
            "line 2: ant lists ant in also",
        ),
        (
            read_class_map,
            CLASS_MAP_WITH_ALSO + f"ant,1,{ANT},,r\nant,2,{BEE},,r\nfly,3,n02190166,ant,r\n",
            "line 4: fly lists ant",
        ),
        (read_wnid_list, WNID_LIST + f"{ANT}\n{ANT}\n", f"line 3: {ANT}"),
        *(
            (read_index_map, INDEX_MAP + f"chair,{indices}\n", "line 2: chair")
            for indices in ("²", "1000", "")
        ),
        (
            read_index_map,
            INDEX_MAP + "chair,423 559\nsofa,831 559\n",
            "line 3: .*559 .*chair and sofa",
        ),
        (read_own_classes, OWN_CLASSES, ""),
        (read_own_classes, OWN_CLASSES + " ,saw\n", "line 2: "),
        (read_own_classes, OWN_CLASSES + "saw,a\nsaw,b\n", "line 2: saw"),
        pytest.param(
            read_own_classes,
            OWN_CLASSES + f"{'x' * 200_000},saw\n",
            "line 1 ",
            id="a field that csv refuses",
        ),
    ],
)
def test_a_bad_table_of_classes_is_refused_with_its_line(write_table, read, text, place):
    path = write_table(text)
    with pytest.raises(UserError, match=f"classes.csv.*{place}"):
        read(path)


def test_a_class_file_has_at_most_as_many_classes_as_rows_can_hold(write_table):
    lines = [f"k{number},name\n" for number in range(32_769)]
    space = read_own_classes(write_table(OWN_CLASSES + "".join(lines[:-1])))
    assert space.keys[-1] == "k32767"
    subset = read_own_classes(write_table(OWN_CLASSES + lines[-2]), space)
    assert subset.indices == ((32_767,),)
    with pytest.raises(UserError, match=r"classes.csv lists 32769 classes; .* at most 32768, so"):
        read_own_classes(write_table(OWN_CLASSES + "".join(lines)))


def test_the_digest_depends_on_indices_and_not_on_names():
    # given
    space = LabelSpace(keys=("a",), indices=((1, 2),), names=("x",))
    space_of_other_indices = LabelSpace(keys=("a",), indices=((1, 3),), names=("x",))
    space_of_other_names = LabelSpace(keys=("a",), indices=((1, 2),), names=("y",))
    # then
    assert space_of_other_indices.digest != space.digest
    assert space_of_other_names.digest == space.digest
    assert LabelSpace.from_json(space.to_json()) == space


def test_further_right_answers_are_classes_of_the_map_in_any_order_and_named_twice_are_one(
    write_table,
):
    # given
    rows_with_further_answers = f"ant,1,{ANT},fly bee fly,r\nbee,2,{BEE},,r\nfly,3,{FLY},ant,r\n"
    rows_without_any = f"ant,1,{ANT},,r\nbee,2,{BEE},,r\nfly,3,{FLY},,r\n"
    rows_without_the_column = f"ant,1,{ANT},r\nbee,2,{BEE},r\nfly,3,{FLY},r\n"
    # when
    space = read_class_map(write_table(CLASS_MAP_WITH_ALSO + rows_with_further_answers))
    space_without_any = read_class_map(write_table(CLASS_MAP_WITH_ALSO + rows_without_any))
    space_without_the_column = read_class_map(write_table(CLASS_MAP + rows_without_the_column))
    # then
    assert space.indices == ((ANT_INDEX,), (BEE_INDEX,), (FLY_INDEX,))
    assert space.also == ((1, 2), (), (0,))
    assert space.to_json()["also"] == [[1, 2], [], [0]]
    assert LabelSpace.from_json(space.to_json()) == space
    # and a map without further answers is as it was before there were any
    assert space_without_the_column.also == ()
    assert "also" not in space_without_the_column.to_json()
    assert space_without_the_column.digest != space.digest
    assert space_without_any == space_without_the_column


def space_with_further_answers() -> LabelSpace:
    """Four classes, of which three accept further ones."""
    return LabelSpace(
        keys=("a", "b", "c", "d"),
        indices=((5, 6), (1,), (2,), (9,)),
        names=("A", "B", "C", "D"),
        also=((1, 3), (), (0, 1), (2,)),
    )


def test_a_restricted_space_keeps_order_and_renumbers_the_further_answers():
    # given
    space = space_with_further_answers()
    # when some classes are left, given in any order
    assert space.restricted([3, 0, 2]) == LabelSpace(
        keys=("a", "c", "d"),
        indices=((5, 6), (2,), (9,)),
        names=("A", "C", "D"),
        also=((2,), (0,), (1,)),
    )
    assert space.restricted([0, 2]) == LabelSpace(
        keys=("a", "c"), indices=((5, 6), (2,)), names=("A", "C"), also=((), (0,))
    )
    # when all are left
    assert space.restricted({0, 1, 2, 3}) == space


def test_a_restricted_space_of_which_no_further_answer_is_left_is_one_that_never_had_any():
    # given
    space = space_with_further_answers()
    space_that_never_had_any = LabelSpace(keys=("b", "d"), indices=((1,), (9,)), names=("B", "D"))
    # when
    restricted_space = space.restricted([1, 3])
    # then
    assert restricted_space.also == ()
    assert restricted_space == space_that_never_had_any
    assert restricted_space.digest == space_that_never_had_any.digest


def test_a_restricted_space_keeps_the_number_of_outputs():
    space = LabelSpace(keys=("a", "b"), indices=((1,), (0,)), names=("A", "B"), num_classes=2)
    restricted_space = space.restricted([1])
    assert restricted_space == LabelSpace(keys=("b",), indices=((0,),), names=("B",), num_classes=2)


@pytest.mark.parametrize(
    ("name", "classes"), [("imagenet", 1000), ("imagenet_a", 200), ("imagenet_r", 200)]
)
def test_timms_lists_are_ascending_indices_of_so_many_classes(name, classes):
    space = read_timm_list(name)
    indices = []
    for indices_of_class in space.indices:
        (index,) = indices_of_class
        indices.append(index)
    assert len(indices) == classes
    assert indices == sorted(set(indices))
    assert indices[0] >= 0
    assert indices[-1] < 1000


@pytest.mark.parametrize("name", ["imagenet12k", "no_such_list"])
def test_a_list_of_other_classes_than_imagenets_is_refused(name):
    with pytest.raises(UserError, match=name):
        read_timm_list(name)


def test_a_familys_own_classes_are_numbered_in_their_order_and_a_subset_keeps_the_numbers(
    write_table,
):
    # when
    family = read_own_classes(write_table(OWN_CLASSES + "saw,hand saw\nhammer,hammer\nfile,rasp\n"))
    subset = read_own_classes(write_table(OWN_CLASSES + "file,rasp\nsaw,saw\n"), family)
    # then
    assert family.names[0] == "hand saw"
    assert family.indices == ((0,), (1,), (2,))
    assert family.num_classes == 3
    assert subset.indices == ((2,), (0,))
    assert subset.num_classes == 3
    assert subset.digest != family.digest
    # and a class that the family lacks is refused
    other_classes = write_table(OWN_CLASSES + "axe,axe\n")
    with pytest.raises(UserError, match="classes.csv line 2: axe"):
        read_own_classes(other_classes, family)
