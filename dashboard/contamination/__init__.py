"""Parts of the Contamination page: items, scores, what was searched. They show an audit and never run one."""
