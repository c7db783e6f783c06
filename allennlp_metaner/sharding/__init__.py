"""Work on many items, shard by shard: interrupted at any time, it goes on where it was."""
