"""Conversations that are kept as a tree, in which each message names the one before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mindscore.readers.source import first_text

OTHER_BRANCHES = "messages on other branches"


def branch_to(
    leaf: Any, nodes: Mapping[str, Any], parent: str, leave_out: Callable[[str], None]
) -> list[tuple[str, dict[str, Any]]]:
    """Return the nodes from the root to ``leaf`` with their ids; others are counted as left out.

    ``parent`` is the field that names the node before. Without a leaf, it is the last node that
    has none after it. What is no object is passed over, a circle is cut.
    """
    known = {id_: node for id_, node in nodes.items() if isinstance(node, dict)}
    if not isinstance(leaf, str) or leaf not in known:
        parents = {first_text(node.get(parent)) for node in known.values()}
        leaf = next((id_ for id_ in reversed(known) if id_ not in parents), "")
    branch: dict[str, dict[str, Any]] = {}
    while leaf in known and leaf not in branch:
        branch[leaf] = known[leaf]
        leaf = first_text(known[leaf].get(parent))
    for id_ in known:
        if id_ not in branch:
            leave_out(OTHER_BRANCHES)
    return list(branch.items())[::-1]
