"""The service: an HTTP API for one archive, and a page that uses it. Needs the extra `[serve]`."""
