"""Bytes that callers can make the server hold: bounded in all, and nobody takes what others need.

The dynamic threshold of shared buffers (Choudhury and Hahne): each may hold twice as much as is left. So one alone has
two thirds of it, and who comes later always finds some, a third of what the one before found.
"""

_TIMES_WHAT_IS_LEFT = 2


class SharedBytes:
    """At most `max_bytes` held at once, by any number of holders."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        """Bytes held at this moment, by all."""
        self._held_by: dict[str, int] = {}

    def held_by(self, holder: str) -> int:
        """Bytes held at this moment by one."""
        return self._held_by.get(holder, 0)

    def take(self, holder: str, count: int) -> bool:
        """Count `count` bytes more; false, with nothing counted, if that is more than the holder may have."""
        wanted = self.held_by(holder) + count
        if wanted > _TIMES_WHAT_IS_LEFT * (self.max_bytes - self.held - count):
            return False
        self.held += count
        self._held_by[holder] = wanted
        return True

    def give_back(self, holder: str, count: int) -> None:
        """Count `count` bytes less, which were taken."""
        self.held -= count
        left = self._held_by.get(holder, 0) - count
        if left:
            self._held_by[holder] = left
        else:
            self._held_by.pop(holder, None)


class Held:
    """Bytes that are held for as long as this lives: whatever they are counted for refers to it."""

    def __init__(self, shared: SharedBytes, holder: str, count: int) -> None:
        """Of bytes that have been taken."""
        self._shared = shared
        self._holder = holder
        self._count = count

    def __del__(self) -> None:
        """Give them back."""
        self._shared.give_back(self._holder, self._count)
