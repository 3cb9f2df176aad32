"""Jobs of several models in one queue: how often each is loaded, and how long it all takes."""
