"""Other people's files become starpayne grids and models."""
