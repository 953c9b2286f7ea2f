"""Images and the truth about them: drawn, read from disk, split into tasks."""
