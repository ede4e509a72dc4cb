"""A download that can be trusted: https, size and checksum, resume, and the licence shown before anything starts."""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ssl_utils.data.archives import refuse_full, unpack
from ssl_utils.errors import CourseError

CHUNK = 1 << 20
UNSIZED = 1 << 30  # bytes taken at most of an archive whose size nobody has written down


@dataclass(frozen=True)
class Archive:
    """A tar archive on the web, with one top folder.

    Attributes:
        url: its address, https.
        checksum: "md5:..." or "sha256:..." in hexadecimal digits.
        size: in bytes; None where it is not known.
    """

    url: str
    checksum: str
    size: int | None = None

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


class _StaysHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _refuse_other_schemes(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_archive(archive: Archive, *, folder: Path, licence: str) -> Path:
    """Download an archive, check it, unpack it under `folder`, and return its top folder.

    A broken-off download is kept as `*.part` and goes on where it stopped; after unpacking it is removed. Who calls
    this is alone at it (`files.exclusively`).

    Raises:
        CourseError: not https, no connection, no room on the disk, another size or checksum than expected, or an
            archive that is not to be trusted.
    """
    _refuse_other_schemes(archive.url)
    print(f"Downloading {archive.name} into {folder} (licence of the data: {licence})", flush=True)
    part = folder / f"{archive.name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(archive, part)
    algorithm, wanted = archive.checksum.split(":")
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found != wanted:
        raise _refused(part, f"{archive.url}: the download has {algorithm} {found} instead of {wanted}")
    target = unpack(part, folder)
    part.unlink()
    return target


def _refuse_other_schemes(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise CourseError(f"{url}: is not an https address; give one that begins with https://")


def _download(archive: Archive, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have == archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.build_opener(_StaysHttps).open(request, timeout=60) as answer:
            _store(archive, answer, part, have)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing comes after the part, and the checksum will tell whether it is right
            raise CourseError(f"{archive.url}: the server answered {error.code} {error.reason}; try later") from None
    except (OSError, http.client.HTTPException) as error:
        why = f"cannot be downloaded ({getattr(error, 'reason', error)}); check the connection and run again"
        by_hand = f"or put the dataset into {part.parent} by hand"
        raise CourseError(f"{archive.url}: {why} (it resumes), {by_hand}") from None


def _store(archive: Archive, answer: http.client.HTTPResponse, part: Path, have: int) -> None:
    """Write what the server sends behind what is there, never more than the archive may have."""
    begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    start = 0 if answer.status == 200 else int(begins[1]) if begins else None
    if start not in (0, have):
        raise _refused(part, f"{archive.url}: the server went on at byte {start}, not at {have}")
    length, most = answer.headers.get("Content-Length", ""), archive.size or UNSIZED
    end = start + int(length) if length.isdigit() else None
    if end is not None and (end > most or end < (archive.size or 0)):
        expected = "" if archive.size else "at most "
        raise _refused(part, f"{archive.url}: the server offers {end} bytes, not the expected {expected}{most}")
    refuse_full(part.parent, (end or most) - start)
    with part.open("ab" if start else "wb") as out:
        while block := answer.read(CHUNK):
            if out.tell() + len(block) > most:
                raise _refused(part, f"{archive.url}: the server sent more than {most} bytes")
            out.write(block)
        if out.tell() < (end or archive.size or 0):  # http.client ends quietly when it has been told a length
            raise ConnectionError(f"the connection broke off after {out.tell()} of {end or archive.size} bytes")


def _refused(part: Path, why: str) -> CourseError:
    """Nothing of it is kept, so that the next run begins anew."""
    part.unlink(missing_ok=True)
    return CourseError(f"{why}; run again to load it anew, or put the dataset into {part.parent} by hand")
