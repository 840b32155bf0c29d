"""Readers: each turns one slice of a shard into batches of documents and names everything it could not use."""
