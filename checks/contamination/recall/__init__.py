"""How much of what is planted an audit finds: rewrites, planting, measuring. Never touches the user's own corpus."""
