"""Which node classes jobs may use: some read files, fetch URLs or run code on the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tasks.errors import NodeForbiddenError
from tasks.workflow import Workflow, node_name


@dataclass(frozen=True)
class NodePolicy:
    """The operator's lists: names of classes, and patterns as a shell has them.

    Attributes:
        allowed: the only ones that may be used; empty: all.
        denied: those that may not be used, allowed or not.
    """

    allowed: Sequence[str] = ()
    denied: Sequence[str] = ()

    def check(self, workflow: Workflow) -> None:
        """Refuse a workflow, checked and in API format, with a node that may not be used.

        Raises:
            NodeForbiddenError: names the node and its class.
        """
        for node_id, node in workflow.items():
            name = node["class_type"]
            if _is_among(name, self.denied):
                raise NodeForbiddenError(
                    f"{node_name(workflow, node_id)}: its class is not allowed here (DENIED_NODES)"
                )
            if self.allowed and not _is_among(name, self.allowed):
                raise NodeForbiddenError(
                    f"{node_name(workflow, node_id)}: its class is not among those that are "
                    "allowed here (ALLOWED_NODES)"
                )


def _is_among(name: str, patterns: Sequence[str]) -> bool:
    # A name may have brackets in it, which mean something else in a pattern.
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
