"""Playing policies: evaluation episodes, their tables, and a browser view of one episode."""
