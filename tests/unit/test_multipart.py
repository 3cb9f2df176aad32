"""A form is the same as the library's own, though its file is never held."""

from email import message_from_bytes
from io import BytesIO

from workers.comfyui.multipart import FileForm


def test_a_form_has_its_file_and_its_fields() -> None:
    content = b"\r\n--x\0" * 100_000
    form = FileForm(
        "image", "\u00fc a.png", BytesIO(content), {"subfolder": "a/b", "type": "input"}
    )
    pieces = list(form)
    body = b"".join(pieces)
    assert len(form) == len(body)
    # Sent again it is the same.
    assert b"".join(form) == body
    assert max(map(len, pieces)) < len(content)
    head = f"Content-Type: {form.content_type}\r\n\r\n".encode()
    subfolder, kind, file = message_from_bytes(head + body).get_payload()
    assert [part.get_payload(decode=True) for part in (subfolder, kind)] == [b"a/b", b"input"]
    assert "\u00fc a.png".encode() in body
    # What the parser takes for a line break of text is a byte of the file.
    start = body.index(content)
    assert body[start : start + len(content)] == content
    assert file.get_param("name", header="Content-Disposition") == "image"
