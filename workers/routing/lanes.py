"""Where jobs wait: here, or in lanes for servers that can run them, or have their models loaded.

A lane is a part of a queue that only some servers take from. Jobs of one lane have the same large
models, and the same servers cannot run them. What takes from them is in `workers.broker`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Lane:
    """One lane.

    Attributes:
        models: names the models of its jobs; empty if these are of no account.
        unable: digests of the capabilities that do not suffice for its jobs, in order.
        worth: how many jobs must wait in it for each server that has their models loaded, for it
            to pay that one more server loads them.
    """

    models: str
    unable: tuple[str, ...] = ()
    worth: int = 2

    @classmethod
    def of(cls, models: str, unable: Iterable[str], worth: int = 2) -> Self:
        """The lane for jobs with such models, which such servers cannot run."""
        return cls(models, tuple(sorted(unable)), worth)

    @property
    def id(self) -> str:
        """Its name: the same for the same models and servers."""
        return hashlib.sha256(" ".join((self.models, *self.unable)).encode()).hexdigest()[:16]

    def dumped(self) -> str:
        """What the broker must know to tell who may take from it."""
        return json.dumps({"models": self.models, "unable": self.unable, "worth": self.worth})


@dataclass(frozen=True)
class Here:
    """The job is this server's.

    Attributes:
        models: names those that it needs loaded.
        cold: whether they are not.
        unable: digests of the capabilities of servers that cannot run it.
        bound_seconds: for which no other server would do as well.
    """

    models: str = ""
    cold: bool = False
    unable: frozenset[str] = frozenset()
    bound_seconds: float = 0.0


@dataclass(frozen=True)
class Later:
    """It is too early to say where the job goes: not for so many seconds."""

    seconds: float
