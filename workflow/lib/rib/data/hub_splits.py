"""Which files of a repository of the hub are those of a config and a split.

Configs are subsets of a dataset, such as the corruptions of ImageNet-C; each has splits. The
README of a repository may list their files. Without such a list folders and file names tell:

    data/train-00000-of-00002.parquet    split `train`, config `default`
    fog/test-00000-of-00001.parquet      split `test`, config `fog`
    fog/test/0000.parquet                split `test`, config `fog`
    test/0.tar                           split `test`, config `default`
    train.parquet                        split `train`, config `default`
    photos-train-0000.tar                split `train`, config `default`
    photos-0000.tar                      split `photos`, config `default`

The list in README.md: https://huggingface.co/docs/hub/datasets-manual-configuration
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from rib.base.errors import UserError
from rib.config.messages import known_name, show

ENDINGS = (".parquet", ".tar")  # of files that layouts read; a split with both has the first
DEFAULT = "default"  # the config that is chosen by itself, and that of files in no folder
SPLIT_OF_LISTS = "train"  # the split of files that a README lists without one
SHARD = re.compile(r"(?P<split>.+)-\d+-of-\d+\.\w+")
# Words of a file's name that say its split, whatever stands before them.
WORDS_OF_SPLITS = {
    *("train", "training", "validation", "valid", "val", "dev"),
    *("test", "testing", "eval", "evaluation"),
}
LONGEST_PATTERN = 500  # characters

# Paths by split by config.
SplitsOfConfigs = dict[str, dict[str, list[str]]]


class SplitName(NamedTuple):
    """A split of a config."""

    config: str
    split: str


@dataclass(frozen=True)
class ChosenNames:
    """The config and split that an entry states, each None if it leaves that to the repository."""

    config: str | None
    split: str | None


def files_of_split(
    paths: Iterable[str], stated_configs: object, chosen: ChosenNames, where: str
) -> list[str]:
    """Paths of the files of a split, sorted.

    Args:
        paths: of all files of the repository.
        stated_configs: `configs` in the README's header, as it was parsed; None if there are none.
        chosen: what the entry states.
        where: file, entry and repository, for messages.

    Raises:
        UserError: The repository has no such config or split, or several and none was chosen; it
            has no files that layouts read, or what its README lists can't be read.
    """
    readable_paths = sorted(path for path in paths if path.endswith(ENDINGS))
    if not readable_paths:
        raise UserError(
            f"{where}: the repository has no files in {' or '.join(ENDINGS)}, which are the ones "
            "that are read; choose another one, or its revision refs/convert/parquet."
        )
    default_config = DEFAULT
    if stated_configs is None:
        splits_of_configs = _paths_by_config_and_split(readable_paths)
    else:
        configs = _checked_configs(stated_configs, where)
        splits_of_configs = _listed_splits(configs, readable_paths, where)
        for config in configs:
            if config.get("default") is True:
                default_config = config["config_name"]
    splits = splits_of_configs[_choose_config(splits_of_configs, chosen, default_config, where)]
    split = _choose_split(splits, chosen, where)
    paths_of_split = splits[split]
    for ending in ENDINGS:
        paths_with_ending = [path for path in paths_of_split if path.endswith(ending)]
        if paths_with_ending:
            return paths_with_ending
    raise UserError(
        f"{where}: its split '{split}' has no files in {' or '.join(ENDINGS)}; choose another one."
    )


def _choose_config(
    configs: Iterable[str], chosen: ChosenNames, default_config: str, where: str
) -> str:
    """The config that the entry states, else the default one, else the only one."""
    names = sorted(configs)
    if chosen.config is not None:
        return known_name(chosen.config, names, "config", where)
    if default_config in names:
        return default_config
    if len(names) == 1:
        return names[0]
    raise UserError(f"{where}: it has the configs {', '.join(names)}; name one of them as config.")


def _choose_split(splits: Iterable[str], chosen: ChosenNames, where: str) -> str:
    """The split that the entry states, else the only one."""
    names = sorted(splits)
    if chosen.split is not None:
        return known_name(chosen.split, names, "split", where)
    if len(names) == 1:
        return names[0]
    raise UserError(f"{where}: it has the splits {', '.join(names)}; name one of them as split.")


# By folders and names


def _paths_by_config_and_split(paths: Iterable[str]) -> SplitsOfConfigs:
    """Paths as {config: {split: [path, ...]}}, which are told by the names of folders and files."""
    splits_of_configs: SplitsOfConfigs = {}
    for path in paths:
        config, split = split_of_path(path)
        paths_of_splits = splits_of_configs.setdefault(config, {})
        paths_of_splits.setdefault(split, []).append(path)
    return splits_of_configs


def split_of_path(path: str) -> SplitName:
    """Config and split of a file by its path: examples are at the top of this module."""
    *folders, file_name = path.split("/")
    if folders and folders[0] == "data":
        folders = folders[1:]
    shard = SHARD.fullmatch(file_name)
    if shard is not None:
        split = shard["split"]
    elif folders:
        split = folders.pop()
    else:
        split = _split_in_name(file_name)
    return SplitName(config="/".join(folders) or DEFAULT, split=split)


def _split_in_name(file_name: str) -> str:
    """The split of a file in no folder: the first word that says one, else the first word."""
    for word in re.split("[-._]", file_name):
        if word in WORDS_OF_SPLITS:
            return word
    return re.split("[-.]", file_name)[0]


# By the list in the README


def _checked_configs(stated_configs: object, where: str) -> list[dict[str, Any]]:
    """The configs that a README lists; a UserError if they are no mappings with a name each."""
    configs = stated_configs if isinstance(stated_configs, list) else []
    for config in configs:
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            configs = []
            break
    if not configs:
        raise _unreadable_list(stated_configs, where)
    return configs


def _listed_splits(
    configs: Sequence[Mapping[str, Any]], paths: Sequence[str], where: str
) -> SplitsOfConfigs:
    """Paths by split by config, as a README lists them.

    A config without `data_files` has those of its folder, `data_dir`, whose splits are told by
    folders and names.
    """
    splits_of_configs: SplitsOfConfigs = {}
    for config in configs:
        folder = _folder_of_config(config, where)
        paths_in_folder = {
            path.removeprefix(folder): path for path in paths if path.startswith(folder)
        }
        splits: dict[str, list[str]] = {}
        if "data_files" in config:
            for split, patterns in _patterns_of_splits(config["data_files"], where).items():
                matching_paths = _matching(paths_in_folder, patterns)
                splits[split] = [paths_in_folder[path] for path in matching_paths]
        else:
            for path_in_folder, path in paths_in_folder.items():
                split = split_of_path(path_in_folder).split
                splits.setdefault(split, []).append(path)
        splits_of_configs[config["config_name"]] = splits
    return splits_of_configs


def _folder_of_config(config: Mapping[str, Any], where: str) -> str:
    """The folder of a config's files, ending in a slash; empty if it is the whole repository."""
    folder = config.get("data_dir", "")
    if not isinstance(folder, str):
        raise _unreadable_list(folder, where)
    folder = folder.removeprefix("./").strip("/")
    if folder in ("", "."):
        return ""
    return f"{folder}/"


def _patterns_of_splits(data_files: object, where: str) -> dict[str, list[str]]:
    """Patterns of paths by split.

    Args:
        data_files: a pattern, a list of patterns, patterns by split, or a list of mappings with
            `split` and `path`.
        where: for messages.
    """
    if isinstance(data_files, dict):
        return {str(split): _patterns(path, where) for split, path in data_files.items()}
    are_mappings = isinstance(data_files, list) and any(
        isinstance(element, dict) for element in data_files
    )
    if not are_mappings:
        return {SPLIT_OF_LISTS: _patterns(data_files, where)}
    patterns_of_splits: dict[str, list[str]] = {}
    assert isinstance(data_files, list)
    for element in data_files:
        if not isinstance(element, dict):
            raise _unreadable_list(element, where)
        split = element.get("split", SPLIT_OF_LISTS)
        if not isinstance(split, str):
            raise _unreadable_list(split, where)
        patterns_of_splits.setdefault(split, []).extend(_patterns(element.get("path"), where))
    return patterns_of_splits


def _patterns(path: object, where: str) -> list[str]:
    """A pattern of paths or a list of them, as a list; a UserError if it is something else."""
    stated_patterns = path if isinstance(path, list) else [path]
    patterns = []
    for pattern in stated_patterns:
        if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
            raise _unreadable_list(pattern, where)
        patterns.append(pattern.removeprefix("./"))
    return patterns


def _unreadable_list(stated: object, where: str) -> UserError:
    """The error that the configs of a README can't be read."""
    return UserError(
        f"{where}: the configs that its README lists can't be read: {show(stated)}; choose another "
        "repository or revision."
    )


def _matching(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The paths that match one of the patterns, in their order."""
    return [path for path in paths if any(matches(path, pattern) for pattern in patterns)]


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern of a README.

    `*`, `?` and `[...]` stand for characters within the name of a folder or file, and `**` in place
    of a folder for any number of folders; as the last one, for all files in there.
    """
    parts = path.split("/")
    parts_of_pattern = pattern.split("/")
    if parts_of_pattern[-1] == "**":
        parts_of_pattern.append("*")
    # Numbers of parts of the pattern that the parts of the path so far may have used up.
    positions = _skip_stars({0}, parts_of_pattern)
    for part in parts:
        next_positions = set()
        for position in positions:
            if position == len(parts_of_pattern):
                continue
            if parts_of_pattern[position] == "**":
                next_positions.add(position)
            elif fnmatchcase(part, parts_of_pattern[position]):
                next_positions.add(position + 1)
        positions = _skip_stars(next_positions, parts_of_pattern)
    return len(parts_of_pattern) in positions


def _skip_stars(positions: set[int], parts_of_pattern: Sequence[str]) -> set[int]:
    """Positions in a pattern, and those behind each `**`, which may stand for no folder."""
    reached = set(positions)
    for position in range(len(parts_of_pattern)):
        if position in reached and parts_of_pattern[position] == "**":
            reached.add(position + 1)
    return reached
