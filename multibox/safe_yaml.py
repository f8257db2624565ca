"""Read YAML that strangers wrote: plain values only, and no small file that grows or keeps PyYAML busy."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from multibox.files import read_text
from multibox.messages import quoted, shortened

YAML_LIMIT = 1_000_000
"""Most bytes of a file: PyYAML takes many seconds for more. ImageNet's 21,000 class names are 0.6 MB."""

TEXT_LIMIT = 4096
"""Largest number of characters of an unquoted value."""


def read_yaml(file: Path, *, as_text: Collection[str] = ()) -> Any:
    """Returns what a YAML file holds: mappings, lists, texts, numbers, dates. No code in it is run.

    Anchors, aliases, merge keys and keys that occur twice are refused.

    Args:
        file: The file to read.
        as_text: Keys of the whole file below which all values are texts as written: YAML turns the name `007` into 7,
            and `no` into False.

    Raises:
        ValueError: The file cannot be read, is too large, or is not such YAML. The message, one sentence, is meant to
            follow the file's name.
    """
    try:
        size = file.stat().st_size
        if size > YAML_LIMIT:
            raise ValueError(f"it has {size:,} bytes, more than {YAML_LIMIT:,}")
        loader = _Loader(read_text(file))  # a SafeLoader: no code is run
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            for key, value in root.value:
                if key.value in as_text:
                    _keep_texts(value)
        return None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ValueError(f"the YAML cannot be read: {shortened(_in_one_line(error))}") from error
    except RecursionError as error:
        raise ValueError("the YAML cannot be read: too many lists or tables in one another") from error
    except OSError as error:
        raise ValueError(f"the YAML cannot be read: {error.strerror}") from error
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:  # impossible dates, YAML tags
        raise ValueError(f"the YAML cannot be read: {shortened(error)}") from error


def _keep_texts(node: yaml.Node) -> None:
    """Makes all plain values of a node texts."""
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.ScalarNode):
            node.tag = "tag:yaml.org,2002:str"
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            nodes += [each for pair in node.value for each in pair]


class _Loader(yaml.SafeLoader):
    """Loads YAML without running code. Refuses anchors, aliases and merge keys, which let a small file grow.

    A key that occurs twice is an error, while PyYAML would take the last.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if getattr(event, "anchor", None) is not None:
            what = "anchors (&name) and aliases (*name) are not read here; write the value out where it is used"
            raise yaml.composer.ComposerError(None, None, what, mark)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > TEXT_LIMIT:
            what = f"a value without quotes has {len(event.value)} characters, more than {TEXT_LIMIT}"
            raise yaml.composer.ComposerError(None, None, what, mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        times = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                what = "merge keys (<<) are not read here; write the entries out"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            if isinstance(key.value, str) and times[key.value] > 1:
                what = f"the key {quoted(key.value)} is there twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
        return super().construct_mapping(node, deep)


def _in_one_line(error: yaml.YAMLError) -> str:
    """Returns PyYAML's message with the place, but without its drawing of the line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    words = ", ".join(filter(None, (error.context, error.problem)))
    return f"{words} (line {mark.line + 1}, column {mark.column + 1})"
