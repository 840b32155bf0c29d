"""What all viewers share: cached reads, the judge, the server process. Nothing here draws."""
