"""What the reports are made of: plots that go into a page, and the page."""
