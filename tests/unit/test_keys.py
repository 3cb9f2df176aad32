import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.storage.keys import job_folder, manifest_key, output_key, thumbnail_key

ANY_TEXT = st.text(st.characters(), max_size=6000)


def test_readable_keys() -> None:
    folder = job_folder("renders", "customer-7", "c0ffee")
    assert folder == "renders/customer-7/c0ffee"
    assert manifest_key(folder) == "renders/customer-7/c0ffee/manifest.json"
    assert output_key(folder, 2, "5:3", 0, "a b_00001_.png") == f"{folder}/2/5:3/0-a b_00001_.png"


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("../../etc/passwd", "0-passwd"),
        ("..\\..\\x.png", "0-x.png"),
        ("/absolute.png", "0-absolute.png"),
        ("a\0b\n.png", "0-a_b_.png"),
        ("日本.png", "0-日本.png"),
        ("..", "0-."),
        ("folder/", "0-file"),
        (".png", "0-.png"),
    ],
)
def test_names_from_outside_stay_in_their_folder(filename: str, name: str) -> None:
    assert output_key("job", 1, "9", 0, filename) == f"job/1/9/{name}"


@given(job=ANY_TEXT.filter(bool), node=ANY_TEXT.filter(bool), name=ANY_TEXT)
def test_no_text_leaves_the_jobs_folder_or_grows_too_long(job: str, node: str, name: str) -> None:
    folder = job_folder("", "", job)
    assert "/" not in folder
    key = output_key(folder, 1, node, 3, name)
    assert key.startswith(f"{folder}/1/")
    assert key.count("/") == 3
    assert not {"", ".", ".."} & set(key.split("/"))
    assert len(key.encode()) <= 1024 - 512
    assert key.isprintable()


def test_a_thumbnail_lies_beside_its_output() -> None:
    assert thumbnail_key("job", 2, "5:3", 0, "a.png") == "job/2/5:3/0.thumbnail-a.png.webp"


@given(
    name=ANY_TEXT,
    other=ANY_TEXT,
    index=st.integers(0, 20),
    prefix=st.integers(0, 900).map("p".__mul__),
)
def test_no_output_has_the_key_of_a_thumbnail(
    name: str, other: str, index: int, prefix: str
) -> None:
    folder = job_folder(prefix, "", "job")
    key = thumbnail_key(folder, 1, "9", index, name)
    assert len(key.encode()) <= 1024
    assert key != output_key(folder, 1, "9", index, other)
    assert key.startswith(f"{folder}/1/9/{index}.")


@given(first=ANY_TEXT.filter(bool), second=ANY_TEXT.filter(bool))
def test_two_jobs_never_share_a_folder(first: str, second: str) -> None:
    assert (job_folder("", "", first) == job_folder("", "", second)) == (first == second)
