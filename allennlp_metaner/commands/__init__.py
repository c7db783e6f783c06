"""Subcommands of `allennlp`."""
