import pytest

from rib.base.errors import UserError
from rib.config.label_space import (
    LabelSpace,
    imagenet_wnids,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_timm_list,
    read_wnid_list,
)

ANT, BEE = "n02219486", "n02206856"
ALSO = "emoji,codepoint,wnids,also,reason\n"
CLASS_MAP, INDEX_MAP, WNIDS, OWN = (
    "emoji,codepoint,wnids,reason\n",
    "key,indices\n",
    "wnid\n",
    "key,name\n",
)


@pytest.fixture
def table(tmp_path):
    """Writes classes.csv."""

    def write(text):
        path = tmp_path / "classes.csv"
        path.write_text(text)
        return path

    return write


def test_there_are_1000_wnids_in_order():
    wnids = imagenet_wnids()
    assert len(wnids) == 1000 and list(wnids) == sorted(set(wnids))
    assert wnids[0] == "n01440764" and wnids.index(ANT) == 310


def test_a_class_map_becomes_indices(table):
    space = read_class_map(table(CLASS_MAP + f"ant,1f41c,{ANT} {BEE},insects\n"))
    assert space.keys == ("1f41c",) and space.names == ("ant",)
    assert space.indices == ((309, 310),)  # bee 309 and ant 310 in ImageNet-1K's order


def test_a_wnid_list_is_ordered_by_index(table):
    assert read_wnid_list(table(WNIDS + f"{ANT}\n{BEE}\n")) == LabelSpace(
        (BEE, ANT), ((309,), (310,)), (BEE, ANT)
    )


@pytest.mark.parametrize(
    ("reader", "text", "place"),
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
        (read_class_map, CLASS_MAP + "ant,1f41c,,r\n", "line 2: ant has 0 "),
        (
            read_class_map,
            CLASS_MAP + f"ant,1f41c,{' '.join(imagenet_wnids()[:11])},r\n",
            "line 2: ant has 11 ",
        ),
        (read_class_map, CLASS_MAP + f"ant,1f41c,{ANT}\n", "line 2: .*4"),
        (read_class_map, "emoji,codepoint,wnids\n", "reason"),
        (
            read_class_map,
            ALSO + f"ant,1,{ANT},,r\nbee,2,{BEE},wasp,r\n",
            "line 3: bee lists wasp in also",
        ),
        (
            read_class_map,
            ALSO + f"ant,1,{ANT},bee ant,r\nbee,2,{BEE},,r\n",
            "line 2: ant lists ant in also",
        ),
        (
            read_class_map,
            ALSO + f"ant,1,{ANT},,r\nant,2,{BEE},,r\nfly,3,n02190166,ant,r\n",
            "line 4: fly lists ant",
        ),
        (read_wnid_list, WNIDS + f"{ANT}\n{ANT}\n", f"line 3: {ANT}"),
        (read_wnid_list, WNIDS + f"{ANT}\nn99999999\n", "line 3: n99999999"),
        *(
            (read_index_map, INDEX_MAP + f"chair,{text}\n", "line 2: chair")
            for text in ("²", "٣", "1000", "-1", "")
        ),
        (
            read_index_map,
            INDEX_MAP + "chair,423 559\nsofa,831 559\n",
            "line 3: .*559 .*chair and sofa",
        ),
        (read_index_map, INDEX_MAP + "chair,423\nchair,831\n", "line 3: chair"),
        (read_own_classes, OWN, ""),
        (read_own_classes, OWN + " ,saw\n", "line 2: "),
        (read_own_classes, OWN + "saw,a\nsaw,b\n", "line 2: saw"),
        pytest.param(
            read_own_classes,
            OWN + f"{'x' * 200_000},saw\n",
            "line 1 ",
            id="a field that csv refuses",
        ),
    ],
)
def test_a_bad_table_of_classes_is_refused_with_its_line(table, reader, text, place):
    with pytest.raises(UserError, match=f"classes.csv.*{place}"):
        reader(table(text))


def test_the_digest_depends_on_indices_and_not_on_names():
    one, other = LabelSpace(("a",), ((1, 2),), ("x",)), LabelSpace(("a",), ((1, 3),), ("x",))
    assert one.digest != other.digest and one.digest == LabelSpace(("a",), ((1, 2),), ("y",)).digest
    assert LabelSpace.from_json(one.to_json()) == one


def test_further_right_answers_are_classes_of_the_map_in_any_order_and_named_twice_are_one(table):
    rows = f"ant,1,{ANT},fly bee fly,r\nbee,2,{BEE},,r\nfly,3,n02190166,ant,r\n"
    space = read_class_map(table(ALSO + rows))
    assert space.also == ((1, 2), (), (0,)) and space.indices == ((310,), (309,), (308,))
    assert LabelSpace.from_json(space.to_json()) == space and space.to_json()["also"] == [
        [1, 2],
        [],
        [0],
    ]
    plain = read_class_map(table(CLASS_MAP + f"ant,1,{ANT},r\nbee,2,{BEE},r\nfly,3,n02190166,r\n"))
    assert plain.also == () and "also" not in plain.to_json() and plain.digest != space.digest
    assert (
        read_class_map(table(ALSO + f"ant,1,{ANT},,r\nbee,2,{BEE},,r\nfly,3,n02190166,,r\n"))
        == plain
    )


def test_a_restricted_space_keeps_order_and_renumbers_the_further_answers():
    space = LabelSpace(
        tuple("abcd"), ((5, 6), (1,), (2,), (9,)), tuple("ABCD"), also=((1, 3), (), (0, 1), (2,))
    )
    assert space.restricted([3, 0, 2]) == LabelSpace(
        tuple("acd"), ((5, 6), (2,), (9,)), tuple("ACD"), also=((2,), (0,), (1,))
    )
    assert space.restricted({0, 1, 2, 3}) == space
    assert space.restricted([0, 2]) == LabelSpace(
        tuple("ac"), ((5, 6), (2,)), tuple("AC"), also=((), (0,))
    )
    assert space.restricted([1, 3]).also == (), (
        "no further answers is the same as none of the others is left"
    )
    assert space.restricted([1, 3]).digest == LabelSpace(tuple("bd"), ((1,), (9,)), ("", "")).digest
    assert LabelSpace(("a", "b"), ((1,), (0,)), ("A", "B"), 2).restricted([1]) == LabelSpace(
        ("b",), ((0,),), ("B",), 2
    )


@pytest.mark.parametrize(
    ("name", "classes"), [("imagenet", 1000), ("imagenet_a", 200), ("imagenet_r", 200)]
)
def test_timms_lists_are_ascending_indices_of_so_many_classes(name, classes):
    indices = [row[0] for row in read_timm_list(name).indices]
    assert (
        len(indices) == classes
        and indices == sorted(set(indices))
        and indices[0] >= 0
        and indices[-1] < 1000
    )


@pytest.mark.parametrize("name", ["imagenet12k", "no_such_list"])
def test_a_list_of_other_classes_than_imagenets_is_refused(name):
    with pytest.raises(UserError, match=name):
        read_timm_list(name)


def test_objectnet_has_113_classes_of_125_of_imagenets(pytestconfig):
    space = read_index_map(pytestconfig.rootpath / "workflow/catalog/classes/objectnet.csv")
    assert len(space.keys) == 113 and len({i for row in space.indices for i in row}) == 125


def test_a_familys_own_classes_are_numbered_in_their_order_and_a_subset_keeps_the_numbers(table):
    family = read_own_classes(table(OWN + "saw,hand saw\nhammer,hammer\nfile,rasp\n"))
    assert (
        family.indices == ((0,), (1,), (2,))
        and family.num_classes == 3
        and family.names[0] == "hand saw"
    )
    some = read_own_classes(table(OWN + "file,rasp\nsaw,saw\n"), family)
    assert some.indices == ((2,), (0,)) and some.num_classes == 3 and some.digest != family.digest
    with pytest.raises(UserError, match="classes.csv line 2: axe"):
        read_own_classes(table(OWN + "axe,axe\n"), family)
