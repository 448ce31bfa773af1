"""Generated datasets for demos and tests."""
