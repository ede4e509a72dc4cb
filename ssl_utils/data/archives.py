"""Unpack an untrusted tar archive: all its headers are checked before anything is written."""

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from ssl_utils.data.formats.stored import one_error
from ssl_utils.errors import CourseError

MOST_MEMBERS = 10_000
MOST_HEADER = 1 << 16  # bytes of a long name or of pax fields, which tarfile reads into memory
MOST_BYTES, MOST_RATIO = 1 << 30, 20  # unpacked: 1 GB, or 20 times the archive where that is more
_LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _Member(tarfile.TarInfo):
    """A header that limits the size of a long header after it."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _LONG and not 0 <= member.size <= MOST_HEADER:
            raise tarfile.TarError(f"a header of {member.size} bytes")
        return member


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a .tar or .tar.gz with one top folder into `folder`, and return that top folder, complete or absent.

    Only one process may call this at a time: a folder `.unpacking-*`, left by a killed run, is deleted.

    Raises:
        CourseError: a member that is not a plain file or folder, is outside the folder or appears twice; too many
            members; more bytes than the limit or the disk allows; a damaged archive; not one top folder.
    """
    temporary = folder / f".unpacking-{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with one_error(archive, "cannot be unpacked", "get the dataset from its source by hand"):
            with tarfile.open(archive, _mode(archive), tarinfo=_Member) as tar:
                members = _checked(tar, max(MOST_BYTES, MOST_RATIO * archive.stat().st_size))
                refuse_full(folder, sum(member.size for member in members if member.isreg()))
                temporary.mkdir()
                tar.extractall(temporary, members, filter="data")
            top = [p for p in temporary.iterdir() if p.is_dir() and not p.name.startswith(".")]
            if len(top) != 1:
                raise tarfile.TarError(f"it has {len(top)} top folders instead of one")
            return top[0].rename(folder / top[0].name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_full(folder: Path, size: int) -> None:
    """Raises: CourseError: the disk of this folder has no room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        sizes = f"needs {size / 1e9:.3g} GB of disk and {free / 1e9:.3g} GB are free"
        raise CourseError(f"{folder}: {sizes}; free some space, or choose another disk with SSL_DATA_ROOT")


def _mode(archive: Path) -> str:
    """Plain or gzip: with other compressions a small file can fill the memory."""
    with archive.open("rb") as stream:
        return "r:gz" if stream.read(2) == b"\x1f\x8b" else "r:"


def _checked(tar: tarfile.TarFile, most: int) -> list[tarfile.TarInfo]:
    """All members; an error at the first suspicious one, so that a bomb is not read to its end."""
    members, files = [], set()
    for member in tar:
        name = PurePosixPath(member.name)
        path = str(name).casefold()  # on some disks a and A are one file
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) and not member.issparse()
        if not plain or name.is_absolute() or ".." in name.parts or path in files or member.size < 0:
            why = "no plain file or folder" if not plain else "twice there, or has a place outside its folder"
            raise tarfile.TarError(f"its member {member.name[:80]!r} is {why}: not to be trusted")
        if len(members) == MOST_MEMBERS or member.offset_data + member.size > most:
            raise tarfile.TarError(f"more than {MOST_MEMBERS} members or {most / 1e9:.3g} GB: not to be trusted")
        members.append(member)
        files |= {path} if member.isreg() else set()
    return members
