"""Small files that unzip to far more than they say, or ask for more than there is, in a process of little memory."""

import bz2
import gzip
import json
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
from faulty_files import dicom_slices, mgh_bytes, mha_bytes, nifti_bytes, nrrd_bytes, write_series

BOMB, ROOM = 512 << 20, 256 << 20  # bytes that a bomb unzips to, and that reading may take
READ = f"""
import json, re, resource, sys
from pathlib import Path
from ssl_utils.data import archives, volumes
from ssl_utils.data.formats import reading
from ssl_utils.errors import CourseError
def taken():
    return int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken() + {ROOM},) * 2)
said = dict()
for name in sys.argv[1:]:
    path = Path(name)
    try:
        if ".tar" in name:
            archives.unpack(path, path.parent)
        elif name.endswith("extension.nii.gz"):
            said[path.name] = f"{{reading.header(path)[0]}}"
        else:
            said[path.name] = f"read: {{volumes.read_image(path).shape}}"
    except CourseError as error:
        said[path.name] = str(error)
print(json.dumps(said))
"""


def zeros(start: bytes, size: int = BOMB) -> bytes:
    """A gzip stream that begins with `start` and goes on with zeros."""
    part = gzip.compress(bytes(32 << 20), 1)
    return gzip.compress(start) + part * (size // (32 << 20))


def zlib_zeros() -> bytes:
    stream = zlib.compressobj(1)
    return b"".join(stream.compress(bytes(32 << 20)) for _ in range(BOMB // (32 << 20))) + stream.flush()


def header(*shape: int) -> bytes:
    """A NIfTI header that announces int16 voxels of this shape."""
    found = bytearray(nifti_bytes(np.zeros((4, 4, 4), np.int16))[:352])
    struct.pack_into("<4h", found, 40, 3, *shape)
    return bytes(found)


def extension(size: int) -> bytes:
    """A NIfTI header with an extension of that many bytes before the voxels."""
    found = bytearray(header(64, 64, 64))
    struct.pack_into("<f", found, 108, 352 + size)
    return bytes(found[:348]) + bytes([1, 0, 0, 0]) + struct.pack("<2i", size, 6)


def write_bombs(folder: Path) -> dict[str, str]:
    """File name -> what a reader should say of it."""
    cube = np.zeros((16, 16, 16), np.int16)
    nrrd, mha = nrrd_bytes(cube, np.eye(4), encoding="raw"), mha_bytes(cube, np.eye(4), compressed=False)
    start = nrrd[: nrrd.index(b"\n\n") + 2]
    zipped_mha = mha[: mha.index(b"LOCAL\n") + 6].replace(b"CompressedData = False", b"CompressedData = True")
    far = tarfile.TarInfo("pax")
    far.type, far.size = tarfile.XHDTYPE, BOMB
    bombs = {
        "surplus.nii.gz": (zeros(header(64, 64, 64) + bytes(2 * 64**3)), "unzips to more than 17301856 bytes"),
        "enormous.nii.gz": (zeros(header(30000, 30000, 30000)), "needs 5.4e+04 GB of memory by its header"),
        "honest.nii.gz": (zeros(header(512, 512, 1024)), "needs 0.537 GB of memory by its header"),
        "large_in_float32.nii.gz": (zeros(header(512, 256, 384), 96 << 20), "needs 0.201 GB of memory"),
        "fits.nii.gz": (zeros(header(256, 256, 256), 32 << 20), "read: (256, 256, 256)"),
        "extension.nii.gz": (zeros(extension(BOMB)), "(64, 64, 64)"),
        "surplus.mgz": (zeros(mgh_bytes(cube, np.eye(4))), "unzips to more than"),
        "surplus.nrrd": (start.replace(b"encoding: raw", b"encoding: gzip") + zeros(b""), "unzips to more than"),
        "bzip2.nrrd": (
            start.replace(b"encoding: raw", b"encoding: bzip2") + bz2.compress(bytes(32 << 20)) * 16,
            "unzips to more than",
        ),
        "surplus.mha": (zipped_mha + zlib_zeros(), "unzips to more than"),
        "pax.tar.gz": (zeros(far.tobuf()), "a header of 536870912 bytes"),
    }
    for name, (content, _) in bombs.items():
        (folder / name).write_bytes(content)
        assert len(content) < 4 << 20
    return {name: said for name, (_, said) in bombs.items()}


def test_a_bomb_is_refused_in_one_line_before_it_fills_the_memory(tmp_path):
    expected = write_bombs(tmp_path)
    slices = dicom_slices(np.zeros((16, 16, 4), np.int16), np.eye(4))
    write_series(tmp_path / "dicom", slices)
    for path in (tmp_path / "dicom").iterdir():
        _deflate(path)
    expected["dicom"] = "is a zipped DICOM slice (Deflated Explicit VR Little Endian)"
    command = [sys.executable, "-c", READ, *(str(tmp_path / name) for name in expected)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert {name: text for name, text in said.items() if expected[name] not in text} == {}
    assert not any("\n" in text for text in said.values()) and said.keys() == expected.keys()


def _deflate(path: Path) -> None:
    import pydicom

    found = pydicom.dcmread(path)
    found.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, found)
