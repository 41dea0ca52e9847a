import pytest

from rib.classes import (
    ClassSpace,
    imagenet_wnids,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_timm_list,
    read_wnid_list,
)
from rib.io import UserError

HEADER = "emoji,codepoint,wnids,reason\n"
ANT, BEE = "n02219486", "n02206856"


def read(tmp_path, text):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    return read_class_map(path)


def test_there_are_1000_wnids_in_order():
    wnids = imagenet_wnids()
    assert len(wnids) == 1000 and list(wnids) == sorted(set(wnids))
    assert wnids[0] == "n01440764" and wnids.index(ANT) == 310


def test_a_class_map_becomes_indices(tmp_path):
    space = read(tmp_path, HEADER + f"ant,1f41c,{ANT} {BEE},insects\n")
    assert space.keys == ("1f41c",) and space.names == ("ant",)
    assert space.indices == ((309, 310),)  # bee 309 and ant 310 in ImageNet-1K's order


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"ant,1f41c,{ANT},\n", "line 2: ant gives no reason"),
        ("ant,1f41c,n99999999,r\n", "line 2: ant names n99999999, which is no ImageNet-1K class"),
        (f"ant,1f41c,{ANT},r\nbee,1f41d,{ANT},r\n", f"line 3: {ANT} is claimed by both ant and bee"),
        (f"ant,1f41c,{ANT},r\nbee,1f41c,{BEE},r\n", "line 3: 1f41c is claimed by both ant and bee"),
        ("ant,1f41c,,r\n", "line 2: ant has 0 wnids; give 1 to 10"),
        (f"ant,1f41c,{' '.join(imagenet_wnids()[:11])},r\n", "line 2: ant has 11 wnids; give 1 to 10"),
        (f"ant,1f41c,{ANT}\n", "line 2: expected 4 values"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, HEADER + rows)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(UserError, match="lacks the column reason"):
        read(tmp_path, "emoji,codepoint,wnids\n")


def test_a_wnid_list_is_ordered_by_index(tmp_path):
    path = tmp_path / "wnids.csv"
    path.write_text(f"wnid\n{ANT}\n{BEE}\n")
    assert read_wnid_list(path) == ClassSpace((BEE, ANT), ((309,), (310,)), (BEE, ANT))
    path.write_text(f"wnid\n{ANT}\n{ANT}\n")
    with pytest.raises(UserError, match=f"line 3: {ANT} is listed twice"):
        read_wnid_list(path)


def test_an_index_is_written_in_plain_digits(tmp_path):
    path = tmp_path / "map.csv"
    for indices in ("\u00b2", "\u0663", "1000", "-1", "9" * 5000, ""):
        path.write_text(f"key,indices\nchair,{indices}\n")
        with pytest.raises(UserError, match=r"map\.csv line 2: chair has the indices '.*'; give 0 to 999"):
            read_index_map(path)


def test_an_index_belongs_to_one_class_only(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("key,indices\nchair,423 559\nsofa,831 559\n")
    with pytest.raises(UserError, match=r"map\.csv line 3: .*559 .*chair and sofa"):
        read_index_map(path)


def test_what_is_no_table_of_classes_is_explained(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("key,name\n")
    with pytest.raises(UserError, match=r"own\.csv lists no class; add a line for each"):
        read_own_classes(path)
    path.write_text("key,name\n ,saw\n")
    with pytest.raises(UserError, match=r"own\.csv line 2: the class has no key; give it one"):
        read_own_classes(path)
    path.write_text(f"key,name\n{'x' * 200_000},saw\n")
    with pytest.raises(UserError, match=r"own\.csv after line 1 it is no CSV \(field larger than field limit"):
        read_own_classes(path)
    with pytest.raises(UserError, match="timm's class list 'imagenet12k' has .*, which is no ImageNet-1K class"):
        read_timm_list("imagenet12k")


def test_the_digest_tells_spaces_apart():
    one, other = ClassSpace(("a",), ((1, 2),), ("x",)), ClassSpace(("a",), ((1, 3),), ("x",))
    assert one.digest != other.digest and one.digest == ClassSpace(("a",), ((1, 2),), ("y",)).digest
    assert ClassSpace.from_json(one.to_json()) == one


@pytest.mark.parametrize(("name", "classes"), [("imagenet", 1000), ("imagenet_a", 200), ("imagenet_r", 200)])
def test_timms_lists_are_ascending_indices_of_so_many_classes(name, classes):
    indices = [row[0] for row in read_timm_list(name).indices]
    assert len(indices) == classes and indices == sorted(set(indices)) and indices[0] >= 0 and indices[-1] < 1000


def test_objectnets_indices_are_ascending_within_each_class(pytestconfig):
    for file, classes, outputs in (("objectnet.csv", 113, 125), ("objectnet_released.csv", 105, 105)):
        space = read_index_map(pytestconfig.rootpath / "workflow/catalog/classes" / file)
        assert len(space.keys) == classes and len({i for row in space.indices for i in row}) == outputs
        assert all(list(row) == sorted(row) for row in space.indices)


def test_classes_of_ones_own_are_outputs_in_their_order_and_a_subset_keeps_the_familys(tmp_path):
    (tmp_path / "all.csv").write_text("key,name\nsaw,hand saw\nhammer,hammer\nfile,rasp\n")
    (tmp_path / "some.csv").write_text("key,name\nfile,rasp\nsaw,saw\n")
    family = read_own_classes(tmp_path / "all.csv")
    assert family.indices == ((0,), (1,), (2,)) and family.outputs == 3 and family.names[0] == "hand saw"
    some = read_own_classes(tmp_path / "some.csv", family)
    assert some.indices == ((2,), (0,)) and some.outputs == 3 and some.digest != family.digest
    (tmp_path / "some.csv").write_text("key,name\naxe,axe\n")
    with pytest.raises(UserError, match="axe is no class of the family"):
        read_own_classes(tmp_path / "some.csv", family)
    (tmp_path / "all.csv").write_text("key,name\nsaw,a\nsaw,b\n")
    with pytest.raises(UserError, match="saw is listed twice"):
        read_own_classes(tmp_path / "all.csv")
