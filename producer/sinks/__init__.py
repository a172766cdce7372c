"""Where result rows go: encoders, a stream, files."""
