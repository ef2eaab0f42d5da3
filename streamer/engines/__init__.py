"""The engines, one file each. `streamer.engine` chooses one; nothing here is needed by its callers."""
