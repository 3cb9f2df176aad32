"""What no setting means to exceed."""

# A day: longer than any timeout means anything.
MOST_SECONDS = 86_400
