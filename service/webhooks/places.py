"""Places: how many deliveries each owner may have under way. A free place goes to the owner served longest ago.

No owner has more than a fixed share of the places, and none takes another if fewer would then be free than that owner
has. So an owner whose receivers never answer leaves most places free; only very many such owners fill them all.
"""

from collections import Counter, deque
from collections.abc import Iterable


class Places:
    """A fixed number of places, and how many of them each owner has. of_one_owner: the most for one owner."""

    def __init__(self, total: int, of_one_owner: int) -> None:
        self._total = total
        self._of_one_owner = of_one_owner
        self._taken: Counter[str] = Counter()
        self._turns: dict[str, int] = {}  # by waiting owner: the number of the owner's last turn
        self._turn = 0

    @property
    def free(self) -> int:
        """The number of free places."""
        return self._total - self._taken.total()

    def share(self, waiting: Iterable[str]) -> dict[str, int]:
        """How many places each waiting owner may take now, in the order of their turns."""
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
        """Give the owner one more place; this was the owner's turn."""
        self._turn += 1
        self._turns[owner] = self._turn
        self._taken[owner] += 1

    def give_back(self, owner: str) -> None:
        """Take one place back from the owner."""
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
