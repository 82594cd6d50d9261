"""Documents of many formats, read and cut into chunks that data can be generated from."""
