"""Where result rows go: files or a stream, and the encoders for both."""
