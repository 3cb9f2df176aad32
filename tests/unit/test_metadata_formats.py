"""Each format's own places for metadata, and what of them a file cannot be without."""

import json
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from workers.outputs.metadata import Stripping

SECRET = b"a secret workflow"
TEXT = SECRET.decode()


def strip(content: bytes) -> tuple[bytes, bool]:
    stripping = Stripping(BytesIO(content))
    stripped = b"".join(iter(lambda: stripping.read(1000), b""))
    return stripped, stripping.complete


def clean(content: bytes) -> bytes:
    """A file with the secret in it, without."""
    assert SECRET in content
    stripped, complete = strip(content)
    assert SECRET not in stripped
    assert complete
    return stripped


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def exif(orientation: int | None = None) -> Image.Exif:
    one = Image.Exif()
    one[0x010F] = TEXT
    one[0x9286] = b"UNICODE\0" + SECRET
    if orientation is not None:
        one[0x0112] = orientation
    return one


def picture() -> Image.Image:
    image = Image.new("RGB", (40, 20), (200, 10, 10))
    image.paste((10, 10, 200), (0, 0, 20, 10))
    return image


def saved(kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    picture().save(stream, kind, **options)
    return stream.getvalue()


# Pictures


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_of_exif_no_more_stays_than_how_the_picture_is_turned(
    kind: str, orientation: int | None
) -> None:
    content = saved(kind, exif=exif(orientation))
    before, after = opened(content), opened(clean(content))
    assert before.tobytes() == after.tobytes()
    assert upright(before).size == upright(after).size
    assert upright(before).tobytes() == upright(after).tobytes()
    assert set(after.getexif()) <= {0x0112}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colours_and_density_stay(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {} if kind == "WEBP" else {"dpi": (300, 300)}
    before = saved(kind, icc_profile=profile, exif=exif(), **options)
    info = opened(clean(before)).info
    assert info["icc_profile"] == profile
    assert info.get("dpi") == opened(before).info.get("dpi")


def test_a_png_loses_every_text_and_what_is_private() -> None:
    texts = PngInfo()
    texts.add_text("prompt", TEXT)
    texts.add_text("workflow", TEXT * 9, zip=True)
    texts.add_itxt("parameters", TEXT)
    texts.add(b"comf", b"prompt\0" + SECRET, after_idat=True)
    texts.add(b"tIME", b"\x07\xea\x0b\x1a\0\0\0")
    stripped = clean(saved("PNG", pnginfo=texts, transparency=(1, 2, 3)))
    kinds = [stripped[at + 4 : at + 8] for at in chunks(stripped)]
    assert kinds == [b"IHDR", b"tRNS", b"IDAT", b"IEND"]
    assert opened(stripped).info == {"transparency": (1, 2, 3)}


def chunks(png: bytes) -> list[int]:
    at, found = 8, []
    while at < len(png):
        found.append(at)
        at += 12 + int.from_bytes(png[at : at + 4])
    return found


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=repr
)
def test_a_jpeg_loses_comments_and_application_data(options: dict[str, Any]) -> None:
    segment = b"\xff\xed" + (2 + len(SECRET)).to_bytes(2) + SECRET
    content = saved("JPEG", comment=SECRET, xmp=SECRET, **options)
    stripped = clean(content[:2] + segment + content[2:])
    assert opened(stripped).tobytes() == opened(content).tobytes()
    assert opened(stripped).format == "JPEG"


def test_a_comment_between_the_scans_of_a_jpeg_is_found() -> None:
    content = saved("JPEG", progressive=True)
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    comment = b"\xff\xfe" + (2 + len(SECRET)).to_bytes(2) + SECRET
    # Markers may have filling before them.
    assert clean(content[:second] + b"\xff\xff" + comment + content[second:]).count(b"\xff\xda") > 1


def test_a_gif_loses_comments_and_xmp_and_is_played_as_before() -> None:
    stream = BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], duration=70, loop=3, comment=SECRET
    )
    xmp = b"!\xff\x0bXMP DataXMP" + bytes([len(SECRET)]) + SECRET + b"\0"
    content = stream.getvalue()
    before = opened(content)
    after = opened(clean(content[:-1] + xmp + b";"))
    assert (after.n_frames, after.info["loop"]) == (3, 3)
    assert after.info["duration"] == before.info["duration"] == 70


def test_of_a_webp_xmp_goes_with_its_flag() -> None:
    content = saved("WEBP", xmp=SECRET)
    stripped = clean(content)
    assert (content[20] & 0x04, stripped[20] & 0x04) == (0x04, 0)
    assert "xmp" not in opened(stripped).info


def test_the_last_chunk_of_a_riff_file_may_lack_its_padding() -> None:
    chunk = b"XMP " + len(SECRET).to_bytes(4, "little") + SECRET
    assert len(SECRET) % 2
    assert clean(riff(b"WEBP", chunk)) == riff(b"WEBP", b"JUNK" + chunk[4:8] + bytes(len(SECRET)))


def test_a_wav_keeps_its_sound() -> None:
    sound = riff_chunk(b"fmt ", b"\1\0\1\0" + bytes(12)) + riff_chunk(b"data", b"SOUND!")
    tags = riff_chunk(b"LIST", b"INFOICMT" + SECRET) + riff_chunk(b"id3 ", SECRET)
    assert clean(riff(b"WAVE", sound + tags)).startswith(riff(b"WAVE", sound + tags)[:12] + sound)


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def riff(kind: bytes, content: bytes) -> bytes:
    return b"RIFF" + (4 + len(content)).to_bytes(4, "little") + kind + content


# Videos


def box(kind: bytes, *content: bytes, wide: bool = False) -> bytes:
    whole = b"".join(content)
    if wide:
        return b"\0\0\0\1" + kind + (16 + len(whole)).to_bytes(8) + whole
    return (8 + len(whole)).to_bytes(4) + kind + whole


FTYP = box(b"ftyp", b"isom\0\0\2\0isomavc1")


def void(content: bytes) -> bytes:
    return box(b"free", bytes(len(content)))


@pytest.mark.parametrize("kind", [b"udta", b"meta", b"uuid", b"free"])
@pytest.mark.parametrize("wide", [False, True])
def test_boxes_of_metadata_become_free_wherever_they_are(kind: bytes, wide: bool) -> None:
    def movie(filling: bytes) -> bytes:
        name = b"free" if filling != SECRET else kind
        tag = box(name, filling, wide=wide)
        track = box(b"trak", box(b"tkhd", b"x"), box(b"mdia", box(b"mdhd", b"y"), tag), tag)
        return FTYP + tag + box(b"moov", box(b"mvhd", b"z"), track, tag, wide=wide) + tag

    data = box(b"mdat", b"pictures and sound", wide=wide)
    assert clean(movie(SECRET) + data) == movie(bytes(len(SECRET))) + data


def test_a_box_may_go_on_to_the_end_of_the_file() -> None:
    data = b"\0\0\0\0mdat" + b"pictures"
    assert clean(FTYP + box(b"udta", SECRET) + data) == FTYP + void(SECRET) + data


@pytest.mark.parametrize(
    "broken",
    [
        box(b"moov", b"\0\0\1\0trak", b"more than its parent has"),
        box(b"moov", b"\0\0\0\7trak", b"less than a box has"),
        b"\0\0\0\1moov\0\0\0\0\0\0\0\x0f",
        b"\0\0\0\0udta",
    ],
)
def test_boxes_that_make_no_sense_pass_with_all_that_follows(broken: bytes) -> None:
    content = FTYP + broken + box(b"udta", SECRET)
    assert strip(content) == (content, False)


def test_boxes_in_boxes_by_the_thousand_are_none() -> None:
    content = b"".join((8 * (5000 - n)).to_bytes(4) + b"moov" for n in range(5000))
    assert strip(FTYP + content) == (FTYP + content, True)


@pytest.mark.parametrize("brand", [b"avif", b"heic"])
def test_of_a_picture_in_boxes_the_metadata_is_the_picture(brand: bytes) -> None:
    content = box(b"ftyp", b"mif1\0\0\0\0", brand) + box(b"meta", SECRET)
    assert strip(content) == (content, False)


EBML, SEGMENT, INFO, TAGS = b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x15I\xa9f", b"\x12T\xc3g"
CLUSTER, TITLE, CRC, TIMECODE = b"\x1fC\xb6u", b"{\xa9", b"\xbf", b"\xe7"
UNKNOWN = b"\x01" + b"\xff" * 7


def element(kind: bytes, content: bytes, *, size: bytes | None = None) -> bytes:
    return kind + (size or bytes([0x80 | len(content)])) + content


@pytest.mark.parametrize("size", [None, UNKNOWN], ids=["known", "unknown"])
def test_elements_of_metadata_become_void_in_place(size: bytes | None) -> None:
    cluster = element(CLUSTER, element(TIMECODE, b"\0"), size=size)
    checksum = element(CRC, b"\1\2\3\4")

    def movie(title: bytes, tags: bytes, checksum: bytes) -> bytes:
        content = element(INFO, checksum + title) + cluster + tags
        return element(EBML, b"") + element(SEGMENT, content, size=size)

    title, tags = element(TITLE, SECRET), element(TAGS, SECRET)
    stripped = clean(movie(title, tags, checksum))
    voided = [
        b"\xec\x01" + (len(one) - 9).to_bytes(7) + bytes(len(one) - 9) for one in (title, tags)
    ]
    assert stripped == movie(*voided, b"\xec\x84" + bytes(4))


@pytest.mark.parametrize("broken", [b"\0", b"\x08", TAGS + UNKNOWN, TAGS + b"\0"])
def test_elements_that_make_no_sense_pass_with_all_that_follows(broken: bytes) -> None:
    content = element(EBML, b"") + broken + element(TAGS, SECRET)
    assert strip(content) == (content, False)


def test_an_element_that_is_cut_short_of_a_void_one_passes() -> None:
    content = element(EBML, b"") + TAGS + b"\x90xyz"
    assert strip(content) == (content, False)


# Sound


def id3(content: bytes, flags: int = 0) -> bytes:
    size = bytes(len(content) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0" + bytes([flags]) + size + content


SOUND = b"\xff\xfb\x90\x00" + b"sound" * 100
APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32 + len(SECRET), 1, 0)
APE_WITH_HEAD = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32 + len(SECRET), 1, 1 << 31)


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (id3(SECRET) + SOUND, id3(bytes(len(SECRET))) + SOUND),
        (id3(SECRET, 0x10) + b"3DI" + bytes(7) + SOUND, id3(bytes(len(SECRET) + 10)) + SOUND),
        (SOUND + b"TAG" + SECRET.ljust(125), SOUND),
        (SOUND + SECRET + APE, SOUND),
        (SOUND + APE_WITH_HEAD + SECRET + APE_WITH_HEAD, SOUND),
        (SOUND + SECRET + APE + b"TAG" + SECRET.ljust(125), SOUND),
        (SOUND * 6000 + b"TAG" + SECRET.ljust(125), SOUND * 6000),
    ],
    ids=["id3", "id3 with a footer", "id3v1", "ape", "ape with a head", "both", "long"],
)
def test_an_mp3_keeps_its_sound(content: bytes, left: bytes) -> None:
    assert clean(content) == left


@pytest.mark.parametrize(
    "content",
    [
        id3(SECRET) + b"fLaC" + SECRET,
        b"ID3\4\0\0\xff\0\0\0" + SECRET + SOUND,
        SOUND + SECRET + b"APETAGEX" + struct.pack("<IIII8x", 2000, 10**6, 1, 0),
    ],
    ids=["something else behind the tag", "no size", "larger than the file"],
)
def test_tags_that_make_no_sense_are_told_of(content: bytes) -> None:
    assert SECRET in strip(content)[0]
    assert not strip(content)[1]


def test_a_flac_keeps_facts_and_seek_points() -> None:
    def block(kind: int, content: bytes) -> bytes:
        return bytes([kind]) + len(content).to_bytes(3) + content

    facts, points = block(0, b"f" * 34), block(3, b"p" * 18)
    content = b"fLaC" + facts + block(4, SECRET) + points + block(0x80 | 6, SECRET) + b"\xff\xf8"
    padding = bytes(len(SECRET))
    kept = b"fLaC" + facts + block(1, padding) + points + block(0x81, padding) + b"\xff\xf8"
    assert clean(content) == kept


def ogg_sum(page: bytes) -> int:
    remainder = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        for bit in range(7, -1, -1):
            remainder = remainder << 1 ^ (byte >> bit & 1) << 32
            if remainder >> 32:
                remainder ^= 0x104C11DB7
    return remainder


def ogg_page(number: int, sizes: list[int], body: bytes, serial: bytes = b"abcd") -> bytes:
    head = b"OggS\0\0" + bytes(8) + serial + number.to_bytes(4, "little")
    page = head + bytes(4) + bytes([len(sizes), *sizes]) + body
    return page[:22] + ogg_sum(page).to_bytes(4, "little") + page[26:]


def ogg_pages(content: bytes) -> list[bytes]:
    pages = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(content[:size])
        content = content[size:]
    return pages


@pytest.mark.parametrize(
    ("start", "mark", "behind"),
    [(b"OpusHead", b"OpusTags", b""), (b"\x01vorbis", b"\x03vorbis", b"\1")],
    ids=["opus", "vorbis"],
)
def test_the_comments_of_an_ogg_file_keep_their_size_over_many_pages(
    start: bytes, mark: bytes, behind: bytes
) -> None:
    comments = (SECRET * 9000)[: 255 * 300]
    vendor = mark + (6).to_bytes(4, "little") + b"vendor"
    packet = vendor + (1).to_bytes(4, "little") + comments
    setup, sound = b"setup", b"sound" * 9
    sizes = [255] * (len(packet) // 255) + [len(packet) % 255, len(setup)]
    body = packet + setup
    pages = [
        ogg_page(0, [len(start)], start),
        ogg_page(1, sizes[:255], body[: 255 * 255]),
        ogg_page(2, sizes[255:], body[255 * 255 :]),
        ogg_page(3, [len(sound)], sound),
    ]
    stripped = ogg_pages(clean(b"".join(pages)))
    assert [int.from_bytes(one[22:26], "little") for one in stripped] == list(
        map(ogg_sum, stripped)
    )
    assert (stripped[0], stripped[3]) == (pages[0], pages[3])
    bodies = b"".join(one[27 + one[26] :] for one in stripped[1:3])
    assert bodies == (vendor + bytes(4) + behind).ljust(len(packet), b"\0") + setup


def test_an_ogg_file_without_comments_stays_as_it_is() -> None:
    tags = b"OpusTags" + bytes(8)
    content = ogg_page(0, [8], b"OpusHead") + ogg_page(1, [len(tags)], tags)
    assert strip(content) == (content, True)


@pytest.mark.parametrize(
    "page",
    [
        ogg_page(1, [len(SECRET)], SECRET),
        ogg_page(1, [16], b"OpusTags" + bytes(8), serial=b"efgh") + SECRET,
        ogg_page(1, [16], b"OpusTags\xff\xff\xff\xff" + bytes(4)) + SECRET,
    ],
    ids=["another codec", "another stream", "a vendor larger than the page"],
)
def test_other_ogg_files_pass(page: bytes) -> None:
    content = ogg_page(0, [8], b"OpusHead") + page
    assert strip(content) == (content, False)


# What begins with JSON


def safetensors(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"TENSOR"


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [({"prompt": TEXT}, {}), ({"format": "pt", "workflow": TEXT}, {"format": "pt"})],
)
def test_tensors_stay_and_the_format_that_loaders_ask_for(
    metadata: dict[str, str], kept: dict[str, str]
) -> None:
    content = safetensors({"__metadata__": metadata, "latent": TENSOR})
    stripped = clean(content)
    assert (len(stripped), stripped[:8], stripped[-6:]) == (len(content), content[:8], b"TENSOR")
    expected = {"latent": TENSOR} | ({"__metadata__": kept} if kept else {})
    assert json.loads(stripped[8:-6]) == expected


def glb(document: Any) -> bytes:
    text = json.dumps(document).encode()
    chunk = len(text).to_bytes(4, "little") + b"JSON" + text
    return b"glTF\2\0\0\0" + (12 + len(chunk)).to_bytes(4, "little") + chunk + b"BINARY"


def test_a_mesh_keeps_the_extras_of_its_parts() -> None:
    meshes = [{"extras": {"targetNames": ["smile"]}, "weights": [0.1]}]
    scene = {"asset": {"version": "2.0"}, "meshes": meshes}
    told = {"asset": {"version": "2.0", "extras": {"p": TEXT}}, "meshes": meshes, "extras": TEXT}
    content = glb(told)
    stripped = clean(content)
    assert (len(stripped), stripped[:20], stripped[-6:]) == (len(content), content[:20], b"BINARY")
    assert json.loads(stripped[20:-6]) == scene


NOTHING_TO_STRIP: list[Callable[[], bytes]] = [
    # As it would not be written anew.
    lambda: safetensors(b'{"a" : {"dtype":"F32","shape":[1E0]} }  '),
    lambda: glb({"asset": {"version": "2.0"}, "x": 1e-7}),
]


@pytest.mark.parametrize("make", NOTHING_TO_STRIP)
def test_json_without_metadata_stays_as_it_is(make: Callable[[], bytes]) -> None:
    assert strip(make()) == (make(), True)


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b"{" * 100_000),
        safetensors(b'{"__metadata__": 5}'),
        safetensors(b'{"__metadata__": {"a": "\\ud800"}, "b": "\\ud800"}'),
        safetensors(b'{"a": ' + b"1" * 5000 + b"}"),
        (2**40).to_bytes(8, "little") + b"{}",
        glb([1]),
        glb({"asset": 5}),
        glb({"asset": [5]}),
        b"glTF\2\0\0\0\x10\0\0\0\4\0\0\0BIN\0data",
    ],
)
def test_json_that_makes_no_sense_passes(content: bytes) -> None:
    assert strip(content) == (content, False)
