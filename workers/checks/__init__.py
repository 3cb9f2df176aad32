"""What a job needs, tried for real: each check says in one sentence what is so, and how to mend it.

Judging is pure; each check asks, has its answer judged, and never waits for long.
"""
