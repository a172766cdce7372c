"""From a page with a form on it to pictures of its fields."""
