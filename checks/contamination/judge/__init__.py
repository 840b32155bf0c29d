"""What the places found in the corpus say of an item: rules, evidence, verdict. Reads no corpus and draws nothing."""
