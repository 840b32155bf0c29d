"""One file per page of the board, named after it. Pages share through the rooms beside them, never with one another."""
