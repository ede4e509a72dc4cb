"""Safe downloads: https only, size and checksum verified, resumed after an interruption, the licence shown first."""

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
UNSIZED = 2 << 30  # most bytes of an archive of unknown size


@dataclass(frozen=True)
class Archive:
    """A tar archive on the web, with one top folder.

    Attributes:
        url: its address, https.
        checksum: "md5:..." or "sha256:..." in hexadecimal digits; empty where the server packs it anew each time.
        size: in bytes; None where it is not known.
    """

    url: str
    checksum: str = ""
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

    An interrupted download is kept as `*.part` and resumed; after unpacking it is removed. Only one process may call
    this at a time (`files.exclusively`).

    Raises:
        CourseError: not https, no connection, a full disk, another size or checksum than expected, or an archive with
            suspicious members.
    """
    _refuse_other_schemes(archive.url)
    print(f"Downloading {archive.name} into {folder} (licence of the data: {licence})", flush=True)
    part = folder / f"{archive.name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(archive, part)
    if archive.checksum:
        _verify(archive, part)
    target = unpack(part, folder)
    part.unlink()
    return target


def _verify(archive: Archive, part: Path) -> None:
    algorithm, expected = archive.checksum.split(":")
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if digest != expected:
        raise _refused(part, f"{archive.url}: the download has {algorithm} {digest} instead of {expected}")


def _refuse_other_schemes(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise CourseError(f"{url}: is not an https address; give one that begins with https://")


def _download(archive: Archive, part: Path) -> None:
    size = part.stat().st_size if part.exists() else 0
    if size == archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={size}-"} if size else {})
    try:
        with urllib.request.build_opener(_StaysHttps).open(request, timeout=60) as response:
            _store(archive, response, part, size)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the part is complete, and its checksum is verified next
            raise CourseError(f"{archive.url}: the server answered {error.code} {error.reason}; try later") from None
    except (OSError, http.client.HTTPException) as error:
        why = f"cannot be downloaded ({getattr(error, 'reason', error)}); check the connection and run again"
        by_hand = f"or unpack this archive into {part.parent} by hand"
        raise CourseError(f"{archive.url}: {why} (it resumes), {by_hand}") from None


def _store(archive: Archive, response: http.client.HTTPResponse, part: Path, size: int) -> None:
    """Append the response to the part of `size` bytes, never beyond the size of the archive."""
    content_range = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    start = 0 if response.status == 200 else int(content_range[1]) if content_range else None
    if start not in (0, size):
        raise _refused(part, f"{archive.url}: the server went on at byte {start}, not at {size}")
    length, most = response.headers.get("Content-Length", ""), archive.size or UNSIZED
    end = start + int(length) if length.isdigit() else None
    if end is not None and (end > most or end < (archive.size or 0)):
        expected = "" if archive.size else "at most "
        raise _refused(part, f"{archive.url}: the server offers {end} bytes, not the expected {expected}{most}")
    refuse_full(part.parent, (end or most) - start)
    with part.open("ab" if start else "wb") as out:
        while block := response.read(CHUNK):
            if out.tell() + len(block) > most:
                raise _refused(part, f"{archive.url}: the server sent more than {most} bytes")
            out.write(block)
        if out.tell() < (end or archive.size or 0):  # http.client does not raise here
            raise ConnectionError(f"the connection broke off after {out.tell()} of {end or archive.size} bytes")


def _refused(part: Path, why: str) -> CourseError:
    """Delete the part, so that the next run starts from the beginning."""
    part.unlink(missing_ok=True)
    return CourseError(f"{why}; run again to load it anew, or unpack this archive into {part.parent} by hand")
