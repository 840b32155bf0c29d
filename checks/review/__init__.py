"""The release review: a policy held against stored evidence, decided, told, signed and verified."""
