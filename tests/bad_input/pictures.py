"""Pictures that are none, are damaged, or claim to be huge.

Each stands beside a good one, and no picture may be unreadable. That odd but whole pictures are
read (CMYK, 1x1, animated, 16 bits ...) is in test_picture_files.py and below in `READ`.
"""

import io
import struct
import zlib

import numpy as np
from bad_input.mistakes import case
from PIL import Image

COMMAND = ("train --dataset=folder --embedding_dim=0 --batch_size=2 --max_unreadable=0 "
           "--data_dir=D")
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)


def encoded(kind, image=None, **options):
    file = io.BytesIO()
    (image or Image.fromarray(NOISE)).save(file, kind, **options)
    return file.getvalue()


JPEG, PNG, WEBP = encoded("JPEG"), encoded("PNG"), encoded("WEBP", lossless=True)


def chunk(kind, data, crc=None):
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc))


def png(width=40, height=40, depth=8, color=2, extra=b"", data=None, crc=None):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = zlib.compress(b"\0" * (40 * 121)) if data is None else data
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header, crc) + extra + chunk(b"IDAT", body)
            + chunk(b"IEND", b""))


def jpeg_of(width, height):
    """JPEG's own header, SOF0, with another size."""
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + struct.pack(">HH", height, width) + JPEG[place + 4:]


def webp_of(width, height):
    """VP8L: 14 bits each, less one, behind a byte 0x2f."""
    place = WEBP.index(b"\x2f", 12) + 1
    bits = int.from_bytes(WEBP[place:place + 4], "little") & ~(2**28 - 1)
    bits |= (width - 1) | (height - 1) << 14
    return WEBP[:place] + bits.to_bytes(4, "little") + WEBP[place + 4:]


def changed(data, place, byte):
    return data[:place] + byte + data[place + len(byte):]


NO_PICTURE = "not a JPEG, PNG or WebP picture"
KINDS = {
    "0 bytes": (b"", "the file is empty (0 bytes)"),
    "1 byte": (b"\xff", NO_PICTURE),
    "a GIF": (encoded("GIF"), NO_PICTURE),
    "an animated GIF": (encoded("GIF", save_all=True, append_images=[Image.new("RGB", (40, 40))]),
                        NO_PICTURE),
    "a BMP": (encoded("BMP"), NO_PICTURE),
    "a TIFF": (encoded("TIFF"), NO_PICTURE),
    "a HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(100), NO_PICTURE),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE),
    "a web page": (b"<!DOCTYPE html><title>404</title>", NO_PICTURE),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", NO_PICTURE),
    "a pickle": (b"\x80\x04cposix\nsystem\n", NO_PICTURE),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_PICTURE),

    "JPEG of its first bytes": (JPEG[:3], NO_PICTURE),
    "JPEG cut in its header": (JPEG[:100], "amage"),
    "JPEG cut in half": (JPEG[:len(JPEG) // 2], "damaged picture: image file is truncated"),
    "JPEG without its end": (JPEG[:-200], "damaged picture"),
    "JPEG without tables": (JPEG.replace(b"\xff\xdb", b"\xff\xed"), "damaged"),
    "JPEG of 0x0": (jpeg_of(0, 0), NO_PICTURE),
    "JPEG of height 0": (jpeg_of(40, 0), NO_PICTURE),
    "JPEG bomb": (jpeg_of(65500, 65500), "too many pixels"),
    "JPEG just beyond": (jpeg_of(8001, 8000), "too many pixels: 8001 x 8000, the limit is 64,000"),
    "JPEG of 12 bits": (changed(JPEG, JPEG.index(b"\xff\xc0") + 4, b"\x0c"), "amage"),
    "JPEG of 9 colors": (changed(JPEG, JPEG.index(b"\xff\xc0") + 9, b"\x09"), "amage"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), NO_PICTURE),

    "PNG of its first bytes": (PNG[:8], NO_PICTURE),
    "PNG cut in half": (PNG[:len(PNG) // 2], "damaged picture"),
    "PNG of 0x40": (png(width=0), "amage"),
    "PNG bomb": (png(30000, 30000), "too many pixels"),
    "PNG bomb of one row": (png(2**31 - 1, 1), "too many pixels"),
    "PNG beyond 31 bits": (png(2**32 - 1, 2**32 - 1), "too many pixels"),
    "PNG of 3 bits": (png(depth=3), "amage"),
    "PNG of color 5": (png(color=5), "amage"),
    "PNG of a wrong checksum": (png(crc=1), NO_PICTURE),
    "PNG without data": (png(data=b""), "damaged picture"),
    "PNG of other data": (png(data=b"hello"), "damaged picture"),
    "PNG of a bomb of text": (png(extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 * 10**8)))),
                              "amage"),
    "PNG of a bomb of colors": (png(extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 * 10**8))
                                                )), None),
    "PNG with a palette of nothing": (png(color=3), None),

    "WebP of its first bytes": (WEBP[:12], NO_PICTURE),
    "WebP cut in half": (WEBP[:len(WEBP) // 2], "amage"),
    "WebP bomb": (webp_of(16384, 16384), "too many pixels"),
    "WebP of another size": (webp_of(41, 41), "damaged picture"),
    "WebP of a sound": (changed(WEBP, 8, b"WAVE"), NO_PICTURE),
    "WebP of a wrong length": (changed(WEBP, 4, b"\xff\xff\xff\xff"), "amage"),
}

CASES = {name: case(COMMAND, "1 of 4 pictures in D cannot be read (max_unreadable=0): 1.png (",
                    words or "", "Repair them, or take their lines out", files={"D/1.png": data})
         for name, (data, words) in KINDS.items()}
