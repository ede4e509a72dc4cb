"""Folders of volumes as people hand them over, drawn at random: lists, names, pairs, labels and layouts, some of them
broken. A seed gives the same folder each time. `benchmarks/sweep.py` reads them."""

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.drawn_lists import CHANGES, LABEL_KEYS, ODD, TEXTS

SIZE = 8
IMAGES = 14  # of a bank, all different
LABELS = ("one", "two", "three", "empty", "gap", "high", "negative", "float", "soft")
STYLES = ["case_{n}", "case_{n:03d}", "Case-{n}", "p{n}_visit{m}", "P{n:03d}-v{m}", "sub-{n:02d}_ses-{m}", "{n}"]
STYLES += ["病例{n}", "脳 {n} {m}", "a b {n}", "{{{n}}}", "%s{n}%d", "s_{n}_{side}", "x{n}.{m}", "{n};: #", "-{n}"]
STYLES += ["a\u0308{n}", "caf\udce9{n}", "line\n{n}", "T1_{n:03d}", "{n}_0000", "..{n}", "[{n}]*?", "ä{n}", "~{n}"]
STYLES += ["N{n}" + "n" * 120]


def bank(folder: Path) -> Path:
    """Small volumes, written once, to which all folders link."""
    folder.mkdir(parents=True)
    rng, place = np.random.default_rng(0), np.indices((SIZE,) * 3).sum(0)
    arrays = {f"image{number}": rng.normal(100, 30, (SIZE,) * 3) for number in range(IMAGES)}
    arrays |= {"constant": np.full((SIZE,) * 3, 7.0), "thin": arrays["image0"][:, :, :1], "part": arrays["image0"][2:]}
    arrays |= {
        "channels": rng.normal(100, 30, (SIZE, SIZE, SIZE, 2)),
        "nan": np.where(place > 9, arrays["image1"], np.nan),
    }
    step = np.minimum(place // 6, 3)
    values = {"one": step > 1, "two": np.minimum(step, 2), "three": step, "empty": 0 * step, "gap": step // 2 * 5}
    values |= {"high": np.where(step > 1, 255, 0), "negative": step - 1, "float": step, "soft": step / 3}
    for name, array in arrays.items():
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    for name, array in values.items():
        kind = np.float32 if name in ("float", "soft") else np.int16
        nib.save(nib.Nifti1Image(array.astype(kind), np.eye(4)), folder / f"{name}.nii.gz")
    return folder


class Drawn:
    """A folder drawn by `seed`; `done` names what was done to it, for the report of a failure."""

    def __init__(self, seed: int, root: Path, files: Path) -> None:
        self.seed, self.rng, self.root, self.files = seed, random.Random(seed), root, files
        root.mkdir(parents=True)
        self.done: list[str] = []
        self.layout = self.rng.choice([self.folders, self.folders, self.listed, self.listed, nnunet, bids, plain])
        self.style = self.rng.choice(STYLES)
        self.images = self.rng.sample(range(IMAGES), IMAGES)
        content = self.layout() if self.layout in (self.folders, self.listed) else self.layout(self)
        self.done.append(f"{getattr(self.layout, '__name__', '')} {self.style[:20]!r}")
        self.write_list(content)
        for _ in range(self.rng.choice([0, 0, 1, 1, 2, 3])):
            with suppress(OSError, EOFError):  # no such file any more, or a name that this disk does not take
                self.damage()

    def name(self, number: int) -> str:
        style = self.style if self.rng.random() < 0.8 else self.rng.choice(STYLES)
        number = number if self.rng.random() < 0.9 else self.rng.randrange(1, 6)
        return style.format(n=number, m=self.rng.randrange(1, 3), side=self.rng.choice("LR"))

    def put(self, source: str, *parts: str) -> str:
        """A volume of the bank at that place: its path relative to the folder."""
        path = self.root.joinpath(*parts)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.files / f"{source}.nii.gz", path)
        return path.relative_to(self.root).as_posix()

    def image(self) -> str:
        if self.images and self.rng.random() < 0.97:
            return f"image{self.images.pop()}"
        return self.rng.choice([f"image{self.rng.randrange(IMAGES)}", "constant", "thin", "part", "channels", "nan"])

    def label(self) -> str:
        return self.rng.choice(LABELS) if self.rng.random() < 0.05 else self.rng.choice(["one", "two", "two"])

    def numbers(self) -> range:
        return range(1, self.rng.choice([2, 4, 5, 6]))

    def folders(self) -> dict | None:
        """imagesTr and labelsTr, or images and labels; a dataset.json without cases, or none."""
        one = self.rng.choice([("imagesTr", "labelsTr"), ("imagesTr", "labelsTr"), ("images", "labels")])
        for images, labels in (one, ("imagesTs", "labelsTs"))[: self.rng.choice([1, 1, 2])]:
            for number in self.numbers():
                name = self.name(number + (20 if images == "imagesTs" else 0))
                self.put(self.image(), images, f"{name}.nii.gz")
                if self.rng.random() < 0.85:
                    self.put(self.label(), labels, f"{name}.nii.gz")
        return self.rng.choice([None, None, {"labels": self.rng.choice(LABEL_KEYS)}, {"channels": ["CT"]}])

    def listed(self) -> dict:
        """Every case in a list, as in the Decathlon, or with folds as in MONAI."""
        content: dict[str, Any] = {"labels": dict(LABEL_KEYS[0])}
        folds = self.rng.random() < 0.2
        sides = ["training"] if folds else ["training", "training", "validation", "test", "unlabeled"]
        for number in range(1, self.rng.randrange(4, 9)):
            name, side = self.name(number), self.rng.choice(sides)
            entry = {"image": self.put(self.image(), "imagesTr", f"{name}.nii.gz")}
            if side != "unlabeled":
                entry["label"] = self.put(self.label(), "labelsTr", f"{name}.nii.gz")
            if self.rng.random() < 0.2:
                entry["patient"] = self.rng.choice(["A", "a", "B", "p1", "P01", 7, 7.0, "7", "007"])
            if folds:
                entry["fold"] = self.rng.choice([0, 0, 1, 2, "0", 0.0])
            content.setdefault(side, []).append(entry if self.rng.random() < 0.9 else entry["image"])
        return content

    def write_list(self, content: dict | None) -> None:
        """The list, changed in up to three places, as JSON; or another text."""
        if content is None or self.rng.random() < 0.02:
            if self.rng.random() < 0.05:
                (self.root / "dataset.json").write_text(self.rng.choice(TEXTS))
                self.done.append("text")
            return
        for _ in range(self.rng.choice([0, 1, 1, 2, 3])):
            change = self.rng.choice(CHANGES)
            change(content, self.rng)
            self.done.append(change.__name__)
        text = json.dumps(content, ensure_ascii=self.rng.random() < 0.5)
        if self.rng.random() < 0.03:
            key = self.rng.choice([*content, "x"])
            text = text[:-1] + f", {json.dumps(key)}: {json.dumps(self.rng.choice(ODD))}}}"
            self.done.append("repeated")
        (self.root / "dataset.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    def damage(self) -> None:
        """One change of the files."""
        everything = sorted(self.root.rglob("*"))
        volumes = [path for path in everything if path.is_file() and path.name.endswith(".nii.gz")]
        change = self.rng.choice(DAMAGES)
        self.done.append(change.__name__)
        if volumes:
            change(self, self.rng.choice(volumes), self.rng.choice(everything))


def nnunet(drawn: Drawn) -> dict | None:
    count = drawn.rng.randrange(1, 4)
    for number in drawn.numbers():
        name = drawn.name(number)
        for channel in range(count if drawn.rng.random() < 0.95 else count + 1):
            if drawn.rng.random() < 0.98:
                drawn.put(drawn.image(), "imagesTr", f"{name}_{channel:04d}.nii.gz")
        if drawn.rng.random() < 0.9:
            drawn.put(drawn.label(), "labelsTr", f"{name}.nii.gz")
    names = {str(number): f"c{number}" for number in range(count if drawn.rng.random() < 0.9 else 2)}
    about = {"channel_names": names, "labels": drawn.rng.choice(LABEL_KEYS), "file_ending": ".nii.gz"}
    about |= {"numTraining": len(list(drawn.root.glob("labelsTr/*")))} if drawn.rng.random() < 0.5 else {}
    return drawn.rng.choice([None, about, about])


def bids(drawn: Drawn) -> None:
    for number in range(1, drawn.rng.randrange(2, 7)):
        for session in drawn.rng.choice([[None], [1], [1, 2]]):
            name = f"sub-{number:02d}" + (f"_ses-{session}" if session else "")
            folder = [f"sub-{number:02d}", *([f"ses-{session}"] if session else []), "anat"]
            suffix = "T1w" if drawn.rng.random() < 0.95 else drawn.rng.choice(["FLAIR", "dseg", "mask", "T1w_T1w"])
            drawn.put(drawn.image(), *folder, f"{name}_{suffix}.nii.gz")
            if drawn.rng.random() < 0.7:
                where = drawn.rng.choice([folder, ["derivatives", *folder], ["derivatives"]])
                space = drawn.rng.choice(["", "", "_space-orig", "_space-MNI", "_run-1"])
                drawn.put(drawn.label(), *where, f"{name}{space}_dseg.nii.gz")


def plain(drawn: Drawn) -> None:
    for number in drawn.numbers():
        drawn.put(drawn.image(), f"{drawn.name(number)}{'_seg' if drawn.rng.random() < 0.03 else ''}.nii.gz")


# ---- changes of files: (drawn, a volume, any path in the folder)


def missing(drawn: Drawn, volume: Path, other: Path) -> None:
    volume.unlink()


def copied(drawn: Drawn, volume: Path, other: Path) -> None:
    """A second name of a file, in its folder or another."""
    folder = drawn.rng.choice([volume.parent, other if other.is_dir() else other.parent])
    make = drawn.rng.choice([os.link, os.symlink, shutil.copy])
    make(volume, folder / f"{drawn.name(drawn.rng.randrange(1, 30))}.nii.gz")


def renamed(drawn: Drawn, volume: Path, other: Path) -> None:
    stem = volume.name.removesuffix(".nii.gz")
    cases = [stem.upper() + ".nii.gz", stem + ".NII.GZ", stem + "_seg.nii.gz", "._" + volume.name, "." + volume.name]
    cases += [volume.name + ".nii.gz", stem + ".nii.zip", stem + "_0000.nii.gz", stem + " (1).nii.gz", ".nii.gz", stem]
    volume.rename(volume.with_name(drawn.rng.choice(cases)))


def exchanged(drawn: Drawn, volume: Path, other: Path) -> None:
    """The voxels of another file under this name."""
    volume.unlink()
    names = [*LABELS, "constant", "thin", "part", "channels", "nan", "image0", "image1"]
    os.link(drawn.files / f"{drawn.rng.choice(names)}.nii.gz", volume)


def unreadable(drawn: Drawn, volume: Path, other: Path) -> None:
    content = volume.read_bytes()
    volume.unlink()
    damaged = [b"", b"hello", content[:40], content[: len(content) // 2], content]
    volume.write_bytes(drawn.rng.choice(damaged))
    volume.chmod(drawn.rng.choice([0o000, 0o644]))


def uncompressed(drawn: Drawn, volume: Path, other: Path) -> None:
    """The same voxels a second time, as .nii."""
    volume.with_name(volume.name.removesuffix(".gz")).write_bytes(gzip.decompress(volume.read_bytes()))


def linked_folder(drawn: Drawn, volume: Path, other: Path) -> None:
    """A link to a folder, to itself, or to nothing."""
    folder = other if other.is_dir() else other.parent
    targets = [drawn.root, folder, folder.parent, "loop", "nowhere", drawn.root / "loop"]
    name = drawn.rng.choice(["loop", "loop.nii.gz", "labelsTr", "imagesTs", "labelsTs", "images", "dataset.json"])
    os.symlink(drawn.rng.choice(targets), drawn.rng.choice([folder, drawn.root]) / name)


def deeper(drawn: Drawn, volume: Path, other: Path) -> None:
    """A volume in a folder of its own, which may have the name of a volume."""
    name = drawn.rng.choice(["deep", "deep/er", volume.name + ".nii.gz", ".hidden", "imagesTr", "labelsTr", "images"])
    (volume.parent / name).mkdir(parents=True, exist_ok=True)
    volume.rename(volume.parent / name / volume.name)


def beside(drawn: Drawn, volume: Path, other: Path) -> None:
    """A file that is no volume, or in another format."""
    folder = other if other.is_dir() else other.parent
    name = drawn.rng.choice(["a.mnc", "a.hdr", "a.img", "Thumbs.db", ".DS_Store", "._a.nii.gz", "x.json", "notes.txt"])
    (folder / name).write_text(drawn.rng.choice(["", '{"training": []}', '{"training": [1]}', "x"]))


def folder_gone(drawn: Drawn, volume: Path, other: Path) -> None:
    folder = other if other.is_dir() else other.parent
    if folder != drawn.root:
        shutil.rmtree(folder)
        if drawn.rng.random() < 0.3:
            folder.write_text("a file")


def a_folder(drawn: Drawn, volume: Path, other: Path) -> None:
    """A folder, empty or not, in the place of a file."""
    path = drawn.rng.choice([volume, drawn.root / "dataset.json"])
    path.unlink(missing_ok=True)
    path.mkdir()
    if drawn.rng.random() < 0.5:
        (path / "IM1.dcm").write_bytes(bytes(128) + b"DICM")


DAMAGES: list[Callable] = [missing, copied, copied, renamed, renamed, exchanged, unreadable, uncompressed]
DAMAGES += [linked_folder, deeper, beside, folder_gone, a_folder]
