"""Parts of the page of the release review: where reviews lie, the decision, its rows, who signed."""
