"""From documents to named entities: one engine for Python, the command line and spaCy."""
