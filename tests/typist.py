"""Keys of a terminal that a test types."""

from stocktrade.keys import Keys


class Typist(Keys):
    """Keys that a test types."""

    def __init__(self) -> None:
        super().__init__(None)
        self.typed = ""

    def pressed(self) -> str:
        typed, self.typed = self.typed, ""
        return typed
