"""WebShop: the text environment without Java, on the original files or on generated ones."""
