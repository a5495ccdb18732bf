"""The atlas: what is known of a network, as a website that opens from a folder."""
