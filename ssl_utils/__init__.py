"""Self-supervised learning for 3D medical images: the thin package under the course's notebooks."""

import sys

__version__ = "0.1.0"
UNUSED = ("rfc3987_syntax", "transformers")


class Lighter:
    """A finder that hides UNUSED from MONAI during its import, and from nothing else. MONAI imports them where it can,
    for a check of bundles and a network that nobody here calls, which takes 3 to 5 seconds of processor time."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> None:
        if name in UNUSED and getattr(getattr(sys.modules.get("monai"), "__spec__", None), "_initializing", False):
            raise ModuleNotFoundError(f"{name} is hidden from MONAI", name=name)


def lighten() -> None:
    """Make the import of MONAI lighter, for a process of our own; call it before."""
    if Lighter not in sys.meta_path:
        sys.meta_path.insert(0, Lighter)
