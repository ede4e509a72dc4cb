"""The report of a transfer of weights, tensor by tensor."""

import re
from collections import Counter
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TransferReport:
    """Every tensor of a transfer; each mapping is from its name to its shape or shapes."""

    source: str
    prefix: str
    matched: dict[str, Shape]
    resized: dict[str, tuple[Shape, Shape]]  # of source, of target
    missing: dict[str, tuple[Shape | None, Shape]]  # of source (None: absent), of target
    unexpected: dict[str, Shape]
    ignored: tuple[str, ...]
    share: float  # of the target encoder's parameters that were loaded, 0..1

    def table(self) -> str:
        """The report for printing; tensors that differ only in the block number share a line."""
        lines = [f"encoder from {self.source}" + (f", names under {self.prefix!r}" if self.prefix else "")]
        for title in ("matched", "resized", "missing", "unexpected"):
            group = getattr(self, title)
            lines.append(f"{title:<10} {len(group):>4} tensors")
            rows = Counter((re.sub(r"\.\d+\.", ".*.", name), shown(shapes)) for name, shapes in group.items())
            lines += [f"    {name:<44} {shapes}" + (f"  x {n}" if n > 1 else "") for (name, shapes), n in rows.items()]
        return "\n".join([*lines, f"loaded {self.share:.2%} of the encoder's parameters"])


def shown(shapes: tuple) -> str:
    if not shapes or isinstance(shapes[0], int):
        return str(shapes)
    return f"{'absent' if shapes[0] is None else shapes[0]} -> {shapes[1]}"


def some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
