"""Places: who may deliver how much at once. A place that is free goes to the owner who was served longest ago.

No owner has more than a share of them, nor takes another where that would leave fewer free than they have: so one whose
receivers are all silent leaves most places free, and only very many such owners together leave none.
"""

from collections import Counter, deque
from collections.abc import Iterable


class Places:
    """A fixed number of places, and how many each owner has. of_one_owner: the most that one may have."""

    def __init__(self, total: int, of_one_owner: int) -> None:
        self._total = total
        self._of_one_owner = of_one_owner
        self._taken: Counter[str] = Counter()
        self._turns: dict[str, int] = {}  # by owner, of those who wait: the number of the last turn
        self._turn = 0

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return self._total - self._taken.total()

    def share(self, waiting: Iterable[str]) -> dict[str, int]:
        """How many places each of the owners who wait may take now, the first in turn first."""
        self._turns = {owner: self._turns.get(owner, 0) for owner in waiting}
        taken, free = self._taken.copy(), self.free
        shares: Counter[str] = Counter()
        queue = deque(sorted(self._turns, key=lambda owner: (self._turns[owner], owner)))
        while queue and free:
            owner = queue.popleft()
            if taken[owner] < min(self._of_one_owner, free):
                queue.append(owner)
                taken[owner] += 1
                shares[owner] += 1
                free -= 1
        return dict(shares)

    def take(self, owner: str) -> None:
        """An owner has a place more, and has had their turn."""
        self._turn += 1
        self._turns[owner] = self._turn
        self._taken[owner] += 1

    def give_back(self, owner: str) -> None:
        """An owner has a place less."""
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
