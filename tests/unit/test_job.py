import uuid

from workers.execution.job import prompt_id


def test_the_prompt_id_is_the_attempts() -> None:
    assert prompt_id("job", 1) == prompt_id("job", 1)
    assert len({prompt_id("job", 1), prompt_id("job", 2), prompt_id("joc", 1)}) == 3
    assert str(uuid.UUID(prompt_id("job", 1))) == prompt_id("job", 1)
