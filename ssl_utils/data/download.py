"""A download that can be trusted: checksum, resume, safe unpacking, and the licence shown before anything starts."""

import hashlib
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from ssl_utils.errors import CourseError

CHUNK = 1 << 20


def fetch_archive(url: str, *, md5: str, folder: Path, licence: str) -> Path:
    """Download a tar archive with one top folder, check it, unpack it under `folder`, and return that top folder.

    A broken-off download is kept as `*.part` and goes on where it stopped. The archive is removed after unpacking.

    Raises:
        CourseError: no connection, wrong checksum, or an archive member that would land outside the folder.
    """
    name = url.rsplit("/", 1)[-1]
    print(f"Downloading {name} into {folder} (licence of the data: {licence})", flush=True)
    part = folder / f"{name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(url, part)
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    if digest.hexdigest() != md5:
        part.unlink()
        raise CourseError(f"{url}: the download has MD5 {digest.hexdigest()} instead of {md5}; run again to load it")
    target = _unpack(part, folder)
    part.unlink()
    return target


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumed = answer.status == 206
            with part.open("ab" if resumed else "wb") as out:
                while block := answer.read(CHUNK):
                    out.write(block)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the part is already complete
            raise CourseError(f"{url}: the server answered {error.code} {error.reason}; try again later") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise CourseError(
            f"{url}: cannot be downloaded ({reason}); check the connection and run again (it resumes), "
            f"or put the dataset into {part.parent} by hand"
        ) from None


def _unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=folder) as temporary:
        try:
            tar.extractall(temporary, filter="data")  # refuses links and members that leave the folder
        except tarfile.TarError as error:
            raise CourseError(f"{archive}: {error}; the archive is not to be trusted, delete it") from None
        top = [p for p in Path(temporary).iterdir() if p.is_dir() and not p.name.startswith(".")]
        if len(top) != 1:
            raise CourseError(f"{archive}: holds {len(top)} top folders instead of one; delete it and run again")
        return top[0].rename(folder / top[0].name)
